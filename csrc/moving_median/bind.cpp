// moving_median for Python: guards memory, cuts the work, names the functions.
#include "core/border.h"
#include "core/python.h"
#include "moving_median/contract.h"

namespace ecgfast::moving_median {
namespace {

void run_forward(View x, View y, View gaps, View scratch, std::int64_t window, std::int64_t tile,
                 int beyond, int on_gap, Place place) {
  expect(x.dims == 3 && x.size[2] > 0, "x must be (N, L, T) with T > 0");
  expect_float(x, "x");
  expect_dense_last(x, "x");
  expect_shape(y, "y", {x.size[0], x.size[1], x.size[2]});
  expect_dtype(y, "y", x.dtype);
  expect_dense(y, "y");
  expect(beyond >= 0 && beyond <= 4, "beyond is unknown");
  expect(on_gap >= 0 && on_gap <= 2, "on_gap is unknown");
  expect(window >= 1 && tile >= 1 && tile + window <= INT32_MAX / 2, "window or tile is too long");
  const Median job = {x, y, gaps, scratch, window, tile, Beyond{beyond}, OnGap{on_gap}};
  const std::int64_t rows = x.size[0] * x.size[1];
  expect(rows * tiles_of(job) <= INT32_MAX, "x has more than 2^31 tiles");
  expect_shape(gaps, "gaps", {rows, tiles_of(job)});
  expect_dtype(gaps, "gaps", DType::i32);
  expect_dense(gaps, "gaps");
  expect_place({x, y, gaps, scratch}, place);
  const std::int64_t held = tile + window - 1;
  if (place.device < 0) {
    // Two lists of keys and places, values, ranks, and a bit each, rounded up.
    expect(scratch.dims == 2 && scratch.size[0] >= place.threads &&
               scratch.size[1] >= held * 48 + 64 && scratch.size[1] % 64 == 0,
           "scratch is too small");
    expect_dtype(scratch, "scratch", DType::u8);
    expect_dense(scratch, "scratch");
  } else {
    expect(held <= (x.dtype == DType::f64 ? kMostHeldWide : kMostHeld),
           "window and tile are too long for CUDA");
  }
  run(job, rows * tiles_of(job), 1, place, ECGFAST_LEVELS(forward));
}

}  // namespace

ECGFAST_BIND(moving_median, m) {
  m.def("moving_median_forward", &run_forward,
        pybind11::call_guard<pybind11::gil_scoped_release>());
}

}  // namespace ecgfast::moving_median
