// pair_distance for Python: guards memory, cuts the work, names the functions.
#include <pybind11/stl.h>

#include <optional>

#include "core/border.h"
#include "core/python.h"
#include "pair_distance/contract.h"

namespace ecgfast::pair_distance {
namespace {

// About 256 kB of reading for a thread at a time: most of it is in the cache.
std::int64_t grain(std::int64_t floats) { return 1 + 65536 / (floats + 1); }

// What both directions read; returns K.
std::int64_t expect_pairs(const View& x, const View& y, const View& rows, const View& columns,
                          const View& norm_x, const View& norm_y, int metric) {
  expect(metric >= 0 && metric <= 3, "metric must be in [0, 3]");
  for (const View& side : {x, y}) {
    expect(side.dims == 2, "x and y must be (rows, D)");
    expect_float(side, "x and y");
    expect_dense_last(side, "x and y");
    expect(side.size[0] < INT32_MAX, "x or y has more than 2^31 - 2 rows");
    expect(side.size[1] <= 65535 * 128, "x or y has more than 65535 * 128 columns");
  }
  expect_dtype(y, "y", x.dtype);
  expect_shape(y, "y", {y.size[0], x.size[1]});
  expect(rows.dims == 1, "rows must be (K,)");
  const std::int64_t count = rows.size[0];
  for (const View& indices : {rows, columns}) {
    expect_shape(indices, "an index", {count});
    expect_dtype(indices, "an index", DType::i64);
  }
  expect(count <= INT32_MAX / 2, "more than 2^31 / 2 pairs");
  const bool cosine = static_cast<Metric>(metric) == Metric::cosine;
  expect_shape(norm_x, "norm_x", {cosine ? x.size[0] : 0});
  expect_shape(norm_y, "norm_y", {cosine ? y.size[0] : 0});
  for (const View& norm : {norm_x, norm_y}) {
    expect_dtype(norm, "a norm", DType::f64);
    expect_dense(norm, "a norm");
  }
  return count;
}

void run_norms(View x, View norm, Place place) {
  expect(x.dims == 2, "x must be (rows, D)");
  expect_float(x, "x");
  expect_dense_last(x, "x");
  expect_shape(norm, "norm", {x.size[0]});
  expect_dtype(norm, "norm", DType::f64);
  expect_dense(norm, "norm");
  expect_place({x, norm}, place);
  run(Norms{x, norm}, x.size[0], grain(x.size[1]), place, ECGFAST_LEVELS(norms));
}

void run_forward(View x, View y, View rows, View columns, std::optional<View> mask, View norm_x,
                 View norm_y, View distance, View owners, std::optional<View> fault, int metric,
                 Place place) {
  const std::int64_t count = expect_pairs(x, y, rows, columns, norm_x, norm_y, metric);
  View valid{};
  if (mask) {
    valid = *mask;
    expect_shape(valid, "valid", {count});
    expect_dtype(valid, "valid", DType::u8);
    expect_place({valid}, place);
  }
  View outside{};
  if (fault) {
    outside = *fault;
    expect_shape(outside, "outside", {});
    expect_dtype(outside, "outside", DType::i32);
    expect_place({outside}, place);
  }
  expect_shape(distance, "distance", {count});
  expect_dtype(distance, "distance", sum_dtype(x.dtype));
  expect_dense(distance, "distance");
  expect_shape(owners, "owners", {2, count});
  expect_dtype(owners, "owners", DType::i32);
  expect_dense(owners, "owners");
  expect_place({x, y, rows, columns, norm_x, norm_y, distance, owners}, place);
  run(Forward{x, y, rows, columns, valid, norm_x, norm_y, distance, owners, outside,
              static_cast<Metric>(metric)},
      count, grain(2 * x.size[1]), place, ECGFAST_LEVELS(forward));
}

void run_backward(View x, View y, View rows, View columns, View norm_x, View norm_y, View distance,
                  View owners, View slots, View grad, View grad_x, int metric, Place place) {
  const std::int64_t count = expect_pairs(x, y, rows, columns, norm_x, norm_y, metric);
  for (const View& numbers : {distance, grad}) {
    expect_shape(numbers, "distance and grad", {count});
    expect_dtype(numbers, "distance and grad", sum_dtype(x.dtype));
  }
  expect(owners.dims == 1, "owners must be (S,)");
  const std::int64_t ends = owners.size[0];
  expect(ends == count || (ends == 2 * count && x.data == y.data && x.size[0] == y.size[0]),
         "owners must be (K,), or (2 K,) if y is x");
  expect_dtype(owners, "owners", DType::i32);
  expect_dense(owners, "owners");
  expect_shape(slots, "slots", {ends});
  expect_dtype(slots, "slots", DType::i64);
  expect_dense(slots, "slots");
  expect_shape(grad_x, "grad_x", {x.size[0], x.size[1]});
  expect_dtype(grad_x, "grad_x", x.dtype);
  expect_dense(grad_x, "grad_x");
  expect_place({x, y, rows, columns, norm_x, norm_y, distance, owners, slots, grad, grad_x}, place);
  const View others = y.size[0] > 0 ? y : x;  // a slot of nowhere reads row 0, with weight 0
  const std::int64_t all = x.size[0];
  const std::int64_t floats = x.size[1] * (1 + (all > 0 ? ends / all : 0));
  run(Backward{x, others, rows, columns, norm_x, norm_y, distance, owners, slots, grad, grad_x,
               static_cast<Metric>(metric)},
      x.size[1] > 0 ? all : 0, grain(floats), place, ECGFAST_LEVELS(backward));
}

}  // namespace

ECGFAST_BIND(pair_distance, m) {
  const pybind11::call_guard<pybind11::gil_scoped_release> released;
  m.def("pair_distance_norms", &run_norms, released);
  m.def("pair_distance_forward", &run_forward, released);
  m.def("pair_distance_backward", &run_backward, released);
}

}  // namespace ecgfast::pair_distance
