// mine_sampled for Python: guards memory, cuts the work, names the functions.
#include <pybind11/stl.h>

#include <optional>

#include "core/border.h"
#include "core/python.h"
#include "mine_sampled/contract.h"

namespace ecgfast::mine_sampled {
namespace {

// About 256 kB of the strip for a thread at a time.
std::int64_t grain(std::int64_t columns) { return 1 + 65536 / (columns + 1); }

void expect_numbers(const View& numbers, const char* name, std::int64_t count) {
  expect_shape(numbers, name, {count});
  expect_dtype(numbers, name, DType::i32);
  expect_dense(numbers, name);
}

Identity expect_side(const View& labels, const std::optional<View>& groups, const char* name,
                     std::int64_t count, const Place& place) {
  expect_numbers(labels, name, count);
  expect_place({labels}, place);
  if (!groups) return {labels, View{}};
  expect_numbers(*groups, name, count);
  expect_place({*groups}, place);
  return {labels, *groups};
}

struct Sides {
  Identity row, column;
};

// What both jobs read and write beside the strip; rows and columns are those of the labels.
Sides expect_sides(const View& row_labels, const View& column_labels,
                   const std::optional<View>& row_groups, const std::optional<View>& column_groups,
                   const View& places, const View& seed, const Place& place) {
  expect(row_labels.dims == 1 && column_labels.dims == 1, "labels must be (R,) and (M,)");
  const std::int64_t rows = row_labels.size[0];
  const std::int64_t columns = column_labels.size[0];
  expect(rows < INT32_MAX && columns < INT32_MAX - kChunk, "more than 2^31 rows or columns");
  expect(row_groups.has_value() == column_groups.has_value(), "one side alone has groups");
  expect_shape(places, "places", {rows});
  expect_dtype(places, "places", DType::i64);
  expect_shape(seed, "seed", {1});
  expect_dtype(seed, "seed", DType::i64);
  expect_place({places, seed}, place);
  return {expect_side(row_labels, row_groups, "a row's number", rows, place),
          expect_side(column_labels, column_groups, "a column's number", columns, place)};
}

void expect_strip(const View& strip, const Sides& sides, const Place& place) {
  expect_shape(strip, "strip", {sides.row.labels.size[0], sides.column.labels.size[0]});
  expect(strip.dtype == DType::f32 || strip.dtype == DType::f64, "strip has the wrong dtype");
  expect_dense_last(strip, "strip");
  expect_place({strip}, place);
}

void expect_drawn(const View& drawn, const char* name, std::int64_t rows, std::int64_t samples,
                  DType dtype, const Place& place) {
  expect_shape(drawn, name, {rows, samples});
  expect_dtype(drawn, name, dtype);
  expect_dense(drawn, name);
  expect_place({drawn}, place);
}

void run_weighted(View strip, View row_labels, View column_labels, std::optional<View> row_groups,
                  std::optional<View> column_groups, View places, View seed, View chunks,
                  View negatives, View valid, std::int64_t first, double power, double least,
                  double most, int policy, Place place) {
  const Sides sides =
      expect_sides(row_labels, column_labels, row_groups, column_groups, places, seed, place);
  expect_strip(strip, sides, place);
  const std::int64_t rows = strip.size[0];
  const std::int64_t columns = strip.size[1];
  expect_shape(chunks, "chunks", {rows, 2, (columns + kChunk - 1) / kChunk});
  expect_dtype(chunks, "chunks", DType::f64);
  expect_dense(chunks, "chunks");
  expect_place({chunks}, place);
  expect(negatives.dims == 2, "negatives must be (R, S)");
  expect_drawn(negatives, "negatives", rows, negatives.size[1], DType::i64, place);
  expect_drawn(valid, "valid", rows, negatives.size[1], DType::u8, place);
  expect(policy >= kDrop && policy <= kHardest, "policy must be 0, 1 or 2");
  run(Weighted{strip, sides.row, sides.column, places, seed, chunks, negatives, valid, first, power,
               least, most, policy},
      rows, grain(columns), place, ECGFAST_LEVELS(weighted));
}

void run_uniform(std::optional<View> strip, std::optional<View> row_squares,
                 std::optional<View> column_squares, View row_labels, View column_labels,
                 std::optional<View> row_groups, std::optional<View> column_groups, View places,
                 View seed, View positives, View negatives, View valid, std::int64_t first,
                 double margin, int rule, bool squared, Place place) {
  const Sides sides =
      expect_sides(row_labels, column_labels, row_groups, column_groups, places, seed, place);
  const std::int64_t rows = row_labels.size[0];
  const std::int64_t columns = column_labels.size[0];
  expect(rule >= kRandom && rule <= kSoftHard, "rule must be 0, 1 or 2");
  const bool distances = strip && row_squares && column_squares;
  expect(distances || rule == kRandom, "this rule needs distances");
  if (distances) {
    expect_strip(*strip, sides, place);
    expect_shape(*row_squares, "row_squares", {rows});
    expect_shape(*column_squares, "column_squares", {columns});
    for (const View& squares : {*row_squares, *column_squares}) {
      expect_dtype(squares, "squares", strip->dtype);
      expect_dense(squares, "squares");
      expect_place({squares}, place);
    }
  }
  expect(positives.dims == 2, "positives must be (R, S)");
  const std::int64_t samples = positives.size[1];
  expect_drawn(positives, "positives", rows, samples, DType::i64, place);
  expect_drawn(negatives, "negatives", rows, samples, DType::i64, place);
  expect_drawn(valid, "valid", rows, samples, DType::u8, place);
  run(Uniform{strip.value_or(View{}), row_squares.value_or(View{}), column_squares.value_or(View{}),
              sides.row, sides.column, places, seed, positives, negatives, valid, first, margin,
              rule, squared},
      rows, grain(columns), place, ECGFAST_LEVELS(uniform));
}

}  // namespace

ECGFAST_BIND(mine_sampled, m) {
  m.def("mine_sampled_weighted", &run_weighted,
        pybind11::call_guard<pybind11::gil_scoped_release>());
  m.def("mine_sampled_uniform", &run_uniform, pybind11::call_guard<pybind11::gil_scoped_release>());
}

}  // namespace ecgfast::mine_sampled
