// resample_poly for Python: guards memory, cuts the work, names the functions.
#include "core/border.h"
#include "core/python.h"
#include "resample_poly/contract.h"

namespace ecgfast::resample_poly {
namespace {

void run_forward(View x, View taps, View y, View gaps, View scratch, std::int64_t up,
                 std::int64_t down, std::int64_t offset, int outside, int on_gap, std::int64_t tile,
                 Place place) {
  expect(x.dims == 3 && x.size[2] > 0, "x must be (N, L, T) with T > 0");
  expect_float(x, "x");
  expect_dense_last(x, "x");
  expect(y.dims == 3 && y.size[2] > 0, "y must be (N, L, Y) with Y > 0");
  expect_shape(y, "y", {x.size[0], x.size[1], y.size[2]});
  expect_dtype(y, "y", x.dtype);
  expect_dense(y, "y");
  expect(up >= 1 && up <= kMostStep && down >= 1 && down <= kMostStep, "up or down is too large");
  expect(taps.dims == 2 && taps.size[1] >= 1 && taps.size[1] <= kMostTaps,
         "taps must be (up, per)");
  expect_shape(taps, "taps", {up, taps.size[1]});
  expect_dtype(taps, "taps", sum_dtype(x.dtype));
  expect_dense_last(taps, "taps");
  expect(tile >= 1 && tile <= kMostTile, "a tile has 1 to 16384 outputs");
  expect(outside >= 0 && outside <= 2 && (outside != 2 || x.size[2] > 1), "outside is unknown");
  expect(on_gap >= 0 && on_gap <= 2, "on_gap is unknown");
  const Resample job = {
      x, y, gaps, scratch, {taps, up, down, offset}, Outside{outside}, OnGap{on_gap}, tile};
  const std::int64_t rows = x.size[0] * x.size[1];
  expect(rows * tiles_of(job) <= INT32_MAX, "x has more than 2^31 tiles");
  expect_shape(gaps, "gaps", {rows, tiles_of(job)});
  expect_dtype(gaps, "gaps", DType::i32);
  expect_dense(gaps, "gaps");
  expect_place({x, taps, y, gaps, scratch}, place);
  const std::int64_t element = x.dtype == DType::f64 ? 8 : 4;
  const std::int64_t held = most_held(job);
  expect(held * element <= kMostHeldBytes, "a tile needs too many inputs");
  if (place.device < 0) {
    expect(scratch.dims == 2 && scratch.size[0] >= place.threads &&
               scratch.size[1] >= (held + tile) * kRows * element && scratch.size[1] % 64 == 0,
           "scratch is too small");
    expect_dtype(scratch, "scratch", DType::u8);
    expect_dense(scratch, "scratch");
  }
  const std::int64_t items = (rows + kRows - 1) / kRows * tiles_of(job);
  run(job, items, 1, place, ECGFAST_LEVELS(forward));
}

}  // namespace

ECGFAST_BIND(resample_poly, m) {
  m.def("resample_poly_forward", &run_forward,
        pybind11::call_guard<pybind11::gil_scoped_release>());
}

}  // namespace ecgfast::resample_poly
