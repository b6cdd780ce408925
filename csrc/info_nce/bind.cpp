// info_nce for Python: guards memory, cuts the work, names the functions.
#include <pybind11/stl.h>

#include <optional>

#include "core/border.h"
#include "core/python.h"
#include "info_nce/contract.h"

namespace ecgfast::info_nce {
namespace {

// About 64k pairs for a thread at a time: a row of so many is a millisecond of exponentials.
std::int64_t grain(std::int64_t columns) { return 1 + 65536 / (columns + 1); }

View or_none(const std::optional<View>& view) { return view ? *view : View{}; }

void expect_ids(const Identity& ids, const char* what, std::int64_t count, const Place& place) {
  for (const View& view : {ids.labels, ids.groups}) {
    if (view.dims == 0) continue;  // no groups
    expect_shape(view, what, {count});
    expect_dtype(view, what, DType::i32);
    expect_dense(view, what);
    expect_place({view}, place);
  }
  expect(ids.labels.dims == 1, "labels are missing");
}

void expect_numbers(const View& view, const char* name, std::int64_t count, const View& products,
                    const Place& place) {
  expect_shape(view, name, {count});
  expect_dtype(view, name, products.dtype);
  expect_dense(view, name);
  expect_place({view}, place);
}

// What both directions read.
void expect_strip(const View& products, const View& scale, const View& places, const Identity& rows,
                  const Identity& columns, const Loss& of, const Place& place) {
  expect(products.dims == 2, "products must be (R, M)");
  expect(products.dtype == DType::f32 || products.dtype == DType::f64,
         "products have the wrong dtype");
  expect_dense(products, "products");
  expect(products.size[0] <= INT32_MAX && products.size[1] <= INT32_MAX,
         "a strip has more than 2^31 rows or columns");
  expect_shape(scale, "scale", {});
  expect_dtype(scale, "scale", products.dtype);
  expect_shape(places, "places", {products.size[0]});
  expect_dtype(places, "places", DType::i64);
  expect_dense(places, "places");
  expect_ids(rows, "an id of rows", products.size[0], place);
  expect_ids(columns, "an id of columns", products.size[1], place);
  expect(rows.groups.dims == columns.groups.dims, "groups must be given for both sides");
  if (of.numbers.dims != 0 || of.kind == Kind::multi_similarity) {
    expect_shape(of.numbers, "numbers", {3});
    expect_dtype(of.numbers, "numbers", DType::f64);
    expect_dense(of.numbers, "numbers");
    expect_place({of.numbers}, place);
  }
  expect(of.kind >= Kind::nt_xent && of.kind <= Kind::negatives, "kind must be one of four");
  expect_place({products, scale, places}, place);
}

void run_forward(View products, View scale, View places, View row_labels, View column_labels,
                 std::optional<View> row_groups, std::optional<View> column_groups, int kind,
                 std::optional<View> numbers, View loss, View counts, View first, View second,
                 Place place) {
  const Forward job{products,
                    scale,
                    places,
                    loss,
                    counts,
                    first,
                    second,
                    {row_labels, or_none(row_groups)},
                    {column_labels, or_none(column_groups)},
                    {static_cast<Kind>(kind), or_none(numbers)}};
  expect_strip(products, scale, places, job.rows, job.columns, job.of, place);
  const std::int64_t rows = products.size[0];
  expect_numbers(loss, "loss", rows, products, place);
  expect_numbers(first, "first", rows, products, place);
  expect_numbers(second, "second", rows, products, place);
  expect_shape(counts, "counts", {rows});
  expect_dtype(counts, "counts", DType::i64);
  expect_dense(counts, "counts");
  expect_place({counts}, place);
  run(job, rows, grain(products.size[1]), place, ECGFAST_LEVELS(forward));
}

using Anchors = std::tuple<View, View, View>;  // weight, first, second

void run_backward(View products, View scale, View places, View row_labels, View column_labels,
                  std::optional<View> row_groups, std::optional<View> column_groups, int kind,
                  std::optional<View> numbers, Anchors row_numbers,
                  std::optional<Anchors> column_numbers, View dots, Place place) {
  const auto& [weight, first, second] = row_numbers;
  Backward job{products,
               scale,
               places,
               dots,
               {{row_labels, or_none(row_groups)}, weight, first, second},
               {{column_labels, or_none(column_groups)}, {}, {}, {}},
               {static_cast<Kind>(kind), or_none(numbers)}};
  expect_strip(products, scale, places, job.rows.ids, job.columns.ids, job.of, place);
  const std::int64_t rows = products.size[0];
  expect_numbers(weight, "weight", rows, products, place);
  expect_numbers(first, "first", rows, products, place);
  expect_numbers(second, "second", rows, products, place);
  if (column_numbers) {
    std::tie(job.columns.weight, job.columns.first, job.columns.second) = *column_numbers;
    expect_numbers(job.columns.weight, "column weight", products.size[1], products, place);
    expect_numbers(job.columns.first, "column first", products.size[1], products, place);
    expect_numbers(job.columns.second, "column second", products.size[1], products, place);
  }
  expect_shape(dots, "dots", {rows});
  expect_dtype(dots, "dots", DType::f64);
  expect_dense(dots, "dots");
  expect_place({dots}, place);
  run(job, rows, grain(products.size[1]), place, ECGFAST_LEVELS(backward));
}

}  // namespace

ECGFAST_BIND(info_nce, m) {
  m.def("info_nce_forward", &run_forward, pybind11::call_guard<pybind11::gil_scoped_release>());
  m.def("info_nce_backward", &run_backward, pybind11::call_guard<pybind11::gil_scoped_release>());
}

}  // namespace ecgfast::info_nce
