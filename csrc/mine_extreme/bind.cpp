// mine_extreme for Python: guards memory, cuts the work, names the functions.
#include <pybind11/stl.h>

#include "core/border.h"
#include "core/python.h"
#include "mine_extreme/contract.h"

namespace ecgfast::mine_extreme {
namespace {

std::int64_t grain(std::int64_t columns) { return 1 + 32768 / (columns + 1); }

void expect_vector(const View& view, const char* name, std::int64_t count, DType dtype) {
  expect_shape(view, name, {count});
  expect_dtype(view, name, dtype);
  expect_dense(view, name);
}

void expect_columns(std::int64_t columns) { expect(columns < INT32_MAX, "2^31 columns or more"); }

void run_pairs(View products, View rows, View columns, View row_halves, View column_halves,
               View row_labels, View column_labels, View row_groups, View column_groups,
               View places, View positives, View negatives, View valid, double slack, int positive,
               int negative, Place place) {
  expect(rows.dims == 2, "rows must be (R, D)");
  expect_float(rows, "rows");
  expect_dense_last(rows, "rows");
  expect(columns.dims == 2, "columns must be (M, D)");
  expect_shape(columns, "columns", {columns.size[0], rows.size[1]});
  expect_dtype(columns, "columns", rows.dtype);
  expect_dense_last(columns, "columns");
  const std::int64_t count = rows.size[0];
  const std::int64_t width = columns.size[0];
  const DType sums = sum_dtype(rows.dtype);
  expect_columns(width);
  expect_shape(products, "products", {count, width});
  expect_dtype(products, "products", sums);
  expect_dense(products, "products");
  expect_vector(row_halves, "row_halves", count, sums);
  expect_vector(column_halves, "column_halves", width, sums);
  for (const View& ids : {row_labels, row_groups}) {
    expect_vector(ids, "an id of rows", count, DType::i32);
  }
  for (const View& ids : {column_labels, column_groups}) {
    expect_vector(ids, "an id of columns", width, DType::i32);
  }
  for (const View& indices : {places, positives, negatives}) {
    expect_vector(indices, "an index", count, DType::i64);
  }
  expect_vector(valid, "valid", count, DType::u8);
  expect(positive >= 0 && positive <= static_cast<int>(Positive::easiest), "no such positive");
  expect(negative >= 0 && negative <= static_cast<int>(Negative::semihard), "no such negative");
  expect_place({products, rows, columns, row_halves, column_halves, row_labels, column_labels,
                row_groups, column_groups, places, positives, negatives, valid},
               place);
  run(Pairs{products,
            rows,
            columns,
            row_halves,
            column_halves,
            {row_labels, row_groups},
            {column_labels, column_groups},
            places,
            positives,
            negatives,
            valid,
            slack,
            static_cast<Positive>(positive),
            static_cast<Negative>(negative)},
      count, grain(width), place, ECGFAST_LEVELS(pairs));
}

void run_labels(View row_values, View column_values, View row_groups, View column_groups,
                View places, View positives, View negatives, View valid, double max_gap,
                bool groups_apart, Place place) {
  expect(row_values.dims == 1 && column_values.dims == 1, "values must be (R,) and (M,)");
  expect(row_values.dtype == DType::f32 || row_values.dtype == DType::f64,
         "values must be of a wide float dtype");
  const std::int64_t count = row_values.size[0];
  const std::int64_t width = column_values.size[0];
  expect_columns(width);
  expect_vector(row_values, "row_values", count, row_values.dtype);
  expect_vector(column_values, "column_values", width, row_values.dtype);
  expect_vector(row_groups, "row_groups", count, DType::i32);
  expect_vector(column_groups, "column_groups", width, DType::i32);
  for (const View& indices : {places, positives, negatives}) {
    expect_vector(indices, "an index", count, DType::i64);
  }
  expect_vector(valid, "valid", count, DType::u8);
  expect_place(
      {row_values, column_values, row_groups, column_groups, places, positives, negatives, valid},
      place);
  run(Labels{row_values, column_values, row_groups, column_groups, places, positives, negatives,
             valid, max_gap, groups_apart},
      count, grain(width), place, ECGFAST_LEVELS(labels));
}

void run_rows(View distances, View eligible, View places, View nearest, View farthest,
              Place place) {
  expect(distances.dims == 2, "distances must be (R, M)");
  expect(distances.dtype == DType::f32 || distances.dtype == DType::f64,
         "distances must be of a wide float dtype");
  expect_dense_last(distances, "distances");
  const std::int64_t count = distances.size[0];
  expect_columns(distances.size[1]);
  expect_vector(eligible, "eligible", distances.size[1], DType::u8);
  expect_vector(places, "places", count, DType::i64);
  expect_vector(nearest, "nearest", count, DType::i64);
  expect(farthest.dims == 2, "farthest must be (R, K)");
  expect_shape(farthest, "farthest", {count, farthest.size[1]});
  expect_dtype(farthest, "farthest", DType::i64);
  expect_dense(farthest, "farthest");
  expect_place({distances, eligible, places, nearest, farthest}, place);
  run(Rows{distances, eligible, places, nearest, farthest}, count, grain(distances.size[1]), place,
      ECGFAST_LEVELS(rows));
}

}  // namespace

ECGFAST_BIND(mine_extreme, m) {
  const auto free = pybind11::call_guard<pybind11::gil_scoped_release>();
  m.def("mine_extreme_pairs", &run_pairs, free);
  m.def("mine_extreme_labels", &run_labels, free);
  m.def("mine_extreme_rows", &run_rows, free);
}

}  // namespace ecgfast::mine_extreme
