// moving_average for Python: guards memory, cuts the work, names the functions.
#include "core/border.h"
#include "core/python.h"
#include "moving_average/contract.h"

namespace ecgfast::moving_average {
namespace {

void run_forward(View x, View y, View gaps, View scratch, std::int64_t window, std::int64_t left,
                 std::int64_t start, std::int64_t tile, int beyond, int on_gap, Place place) {
  expect(x.dims == 3 && x.size[2] > 0, "x must be (N, L, T) with T > 0");
  expect_float(x, "x");
  expect_dense_last(x, "x");
  expect(y.dims == 3 && y.size[2] > 0, "y must be (N, L, Y) with Y > 0");
  expect_shape(y, "y", {x.size[0], x.size[1], y.size[2]});
  expect_dtype(y, "y", x.dtype);
  expect_dense(y, "y");
  expect(window >= 1 && left >= 0 && left < window, "window and left do not fit");
  // Every sample must lie in a window of the tile that counts its gaps.
  expect(start <= 0 && start + y.size[2] >= x.size[2], "y must reach over x");
  expect(beyond >= 0 && beyond <= 4, "beyond is unknown");
  expect(on_gap >= 0 && on_gap <= 2, "on_gap is unknown");
  expect(tile >= 1 && tile <= INT32_MAX, "a tile must have outputs");
  const Average job = {x,    y,     gaps, scratch,        window,
                       left, start, tile, Beyond{beyond}, OnGap{on_gap}};
  const std::int64_t rows = x.size[0] * x.size[1];
  expect(rows * tiles_of(job) <= INT32_MAX, "x has more than 2^31 tiles");
  expect_shape(gaps, "gaps", {rows, tiles_of(job)});
  expect_dtype(gaps, "gaps", DType::i32);
  expect_dense(gaps, "gaps");
  expect_place({x, y, gaps, scratch}, place);
  if (place.device < 0) {
    const std::int64_t bytes = (tile + window - 1) * kRows * (x.dtype == DType::f64 ? 8 : 4);
    expect(scratch.dims == 2 && scratch.size[0] >= place.threads && scratch.size[1] >= bytes &&
               scratch.size[1] % 64 == 0,
           "scratch is too small");
    expect_dtype(scratch, "scratch", DType::u8);
    expect_dense(scratch, "scratch");
  } else {
    expect(window <= kMostCudaWindow, "window is too long for CUDA");
  }
  run(job, (rows + kRows - 1) / kRows * tiles_of(job), 1, place, ECGFAST_LEVELS(forward));
}

}  // namespace

ECGFAST_BIND(moving_average, m) {
  m.def("moving_average_forward", &run_forward,
        pybind11::call_guard<pybind11::gil_scoped_release>());
}

}  // namespace ecgfast::moving_average
