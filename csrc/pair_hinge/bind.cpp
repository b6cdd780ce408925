// pair_hinge for Python: guards memory, cuts the work, names the functions.
#include <pybind11/stl.h>

#include <array>
#include <tuple>

#include "core/border.h"
#include "core/python.h"
#include "pair_hinge/contract.h"

namespace ecgfast::pair_hinge {
namespace {

// Rows of about 64 k pairs for a thread at a time.
std::int64_t grain(const Strip& strip) { return 1 + 65536 / (strip.products.size[1] + 1); }

// A strip as Python gives it: products, x, y, norms of both, labels and groups of both, places,
// whether these are of columns, the first row's number, the metric.
using Told = std::tuple<std::array<View, 10>, bool, std::int64_t, int>;

Strip expect_strip(const Told& told, const Place& place) {
  const auto& [views, by_column, first, metric] = told;
  const auto& [products, x, y, norm_x, norm_y, row_labels, column_labels, row_groups, column_groups,
               places] = views;
  expect(x.dims == 2 && y.dims == 2, "x and y must be (rows, D)");
  const std::int64_t rows = x.size[0];
  const std::int64_t columns = y.size[0];
  expect(y.size[1] == x.size[1], "x and y must be of one width");
  expect(rows <= INT32_MAX && columns <= INT32_MAX, "more than 2^31 rows");
  expect(metric >= 0 && metric <= static_cast<int>(Metric::cosine), "metric must be 0, 1 or 2");
  expect_float(products, "products");
  expect(products.dtype == sum_dtype(products.dtype), "products must be of a dtype of sums");
  expect_shape(products, "products", {rows, columns});
  expect_dense(products, "products");
  expect_shape(norm_x, "norm_x", {rows});
  expect_shape(norm_y, "norm_y", {columns});
  for (const View& view : {x, y, norm_x, norm_y}) {
    expect_dtype(view, "a side", products.dtype);
    expect_dense_last(view, "a side");
  }
  for (const View& view : {row_labels, row_groups}) expect_shape(view, "row ids", {rows});
  for (const View& view : {column_labels, column_groups}) expect_shape(view, "ids", {columns});
  for (const View& view : {row_labels, row_groups, column_labels, column_groups}) {
    expect_dtype(view, "ids", DType::i32);
    expect_dense(view, "ids");
  }
  expect_shape(places, "places", {by_column ? columns : rows});
  expect_dtype(places, "places", DType::i64);
  expect_dense(places, "places");
  for (const View& view : views) expect_place({view}, place);
  return {products,
          x,
          y,
          norm_x,
          norm_y,
          row_labels,
          column_labels,
          row_groups,
          column_groups,
          places,
          by_column,
          first,
          static_cast<Metric>(metric)};
}

void expect_lines(const View& view, const char* name, std::int64_t lines, std::int64_t count,
                  DType dtype, const Place& place) {
  expect_shape(view, name, {lines, count});
  expect_dtype(view, name, dtype);
  expect_dense_last(view, name);
  expect_place({view}, place);
}

void expect_grad(const View& view, const View& like, const Strip& strip, const Place& place) {
  expect_lines(view, "a gradient", like.size[0], like.size[1], strip.products.dtype, place);
}

// Rows, values and numbers of scratch that kernels of triplets take for a strip of this shape.
std::tuple<std::int64_t, std::int64_t, std::int64_t> scratch(std::int64_t rows, std::int64_t width,
                                                             const Place& place) {
#if defined(ECGFAST_EMULATED)
  const bool on_device = true;
#else
  const bool on_device = place.device >= 0;
#endif
  if (on_device) return {rows, width, width + 1};
  return {place.threads, 2 * width + 8, 3 * width + 1};
}

void expect_scratch(const View& values, const View& numbers, const Strip& strip,
                    const Place& place) {
  const auto [rows, most, count] = scratch(strip.products.size[0], strip.products.size[1], place);
  expect_lines(values, "values", rows, most, strip.products.dtype, place);
  expect_lines(numbers, "numbers", rows, count, DType::i32, place);
}

void run_pair_sums(const Told& told, View thresholds, View sums, View counts, Place place) {
  const Strip strip = expect_strip(told, place);
  const std::int64_t rows = strip.products.size[0];
  expect_lines(thresholds, "thresholds", 2, rows, strip.products.dtype, place);
  expect_lines(sums, "sums", 2, rows, strip.products.dtype, place);
  expect_lines(counts, "counts", 4, rows, DType::i64, place);
  run(PairSums{strip, thresholds, sums, counts}, rows, grain(strip), place,
      ECGFAST_LEVELS(pair_sums));
}

void run_pair_coefficients(const Told& told, View row_thresholds, View row_grads,
                           View column_thresholds, View column_grads, View grad_x, bool of_rows,
                           bool of_columns, Place place) {
  const Strip strip = expect_strip(told, place);
  const std::int64_t rows = strip.products.size[0];
  for (const View& view : {row_thresholds, row_grads}) {
    expect_lines(view, "of rows", 2, of_rows ? rows : 0, strip.products.dtype, place);
  }
  for (const View& view : {column_thresholds, column_grads}) {
    expect_lines(view, "of columns", 2, of_columns ? strip.products.size[1] : 0,
                 strip.products.dtype, place);
  }
  expect_grad(grad_x, strip.x, strip, place);
  run(PairCoefficients{strip, row_thresholds, row_grads, column_thresholds, column_grads, grad_x,
                       of_rows, of_columns},
      rows, grain(strip), place, ECGFAST_LEVELS(pair_coefficients));
}

void run_triplet_sums(const Told& told, View sums, View counts, View values, View numbers,
                      double margin, Place place) {
  const Strip strip = expect_strip(told, place);
  const std::int64_t rows = strip.products.size[0];
  expect(!strip.by_column, "anchors must be the rows");
  expect_shape(sums, "sums", {rows});
  expect_dtype(sums, "sums", strip.products.dtype);
  expect_dense(sums, "sums");
  expect_place({sums}, place);
  expect_lines(counts, "counts", 2, rows, DType::i64, place);
  expect_scratch(values, numbers, strip, place);
  run(TripletSums{strip, sums, counts, values, numbers, margin}, rows, grain(strip), place,
      ECGFAST_LEVELS(triplet_sums));
}

void run_triplet_coefficients(const Told& told, View grads, View grad_x, View grad_y, View values,
                              View numbers, double margin, Place place) {
  const Strip strip = expect_strip(told, place);
  const std::int64_t rows = strip.products.size[0];
  expect(!strip.by_column, "anchors must be the rows");
  expect_shape(grads, "grads", {rows});
  expect_dtype(grads, "grads", strip.products.dtype);
  expect_dense(grads, "grads");
  expect_place({grads}, place);
  expect_grad(grad_x, strip.x, strip, place);
  expect_grad(grad_y, strip.y, strip, place);
  expect_scratch(values, numbers, strip, place);
  run(TripletCoefficients{strip, grads, grad_x, values, numbers, margin}, rows, grain(strip), place,
      ECGFAST_LEVELS(triplet_coefficients));
  if (strip.metric == Metric::cosine) return;  // products say it all
  run(ColumnCoefficients{strip, grads, grad_y}, rows > 0 ? strip.products.size[1] : 0, 256, place,
      ECGFAST_LEVELS(column_coefficients));
}

}  // namespace

ECGFAST_BIND(pair_hinge, m) {
  const auto free = pybind11::call_guard<pybind11::gil_scoped_release>();
  m.def("pair_hinge_scratch", &scratch);
  m.def("pair_hinge_sums", &run_pair_sums, free);
  m.def("pair_hinge_coefficients", &run_pair_coefficients, free);
  m.def("pair_hinge_triplet_sums", &run_triplet_sums, free);
  m.def("pair_hinge_triplet_coefficients", &run_triplet_coefficients, free);
}

}  // namespace ecgfast::pair_hinge
