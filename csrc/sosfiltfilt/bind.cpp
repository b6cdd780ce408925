// sosfiltfilt and sosfilt for Python: guards memory, cuts the work, names the functions.
#include <algorithm>
#include <tuple>

#include "core/border.h"
#include "core/python.h"
#include "sosfiltfilt/contract.h"

namespace ecgfast::sosfiltfilt {
namespace {

constexpr std::int64_t kRows = 16;  // side by side with the widest vectors: parts are multiples

std::int64_t rows(const View& x) { return x.size[0] * x.size[1]; }

void expect_signals(const View& x, const View& y) {
  expect(x.dims == 3 && x.size[2] > 0, "x must be (N, L, T) with T > 0");
  expect(rows(x) <= INT32_MAX, "x has more than 2^31 rows");
  expect_float(x, "x");
  expect_dense_last(x, "x");
  expect_shape(y, "y", {x.size[0], x.size[1], x.size[2]});
  expect_dtype(y, "y", x.dtype);
  expect_dense(y, "y");
}

void expect_edge(const View& x, int pad, std::int64_t edge) {
  expect(pad >= 0 && pad <= static_cast<int>(Pad::constant), "pad is no Pad");
  expect(edge >= 0 && edge < x.size[2], "edge must be in [0, T)");
  expect(edge == 0 || pad != static_cast<int>(Pad::none), "pad none has no edge");
}

#if defined(ECGFAST_EMULATED)
constexpr bool kEmulated = true;
#else
constexpr bool kEmulated = false;
#endif

// As contract.h asks for it: threads or rows, moments, and how many samples a moment has. On the
// CPU, signals of more than `whole` samples are cut into parts of half as many.
std::tuple<std::int64_t, std::int64_t, std::int64_t> scratch_shape(View x, std::int64_t edge,
                                                                   std::int64_t whole,
                                                                   Place place) {
  const std::int64_t length = x.size[2] + 2 * edge;
  if (place.device >= 0 || kEmulated) return {rows(x), length <= kTile ? 0 : length, 1};
  const std::int64_t part = std::max(whole / 2, 2 * edge + 2);
  return {place.threads, length <= whole ? length : std::min(x.size[2], part) + 2 * edge, kRows};
}

void expect_scratch(const View& scratch, const View& x, std::int64_t edge, const Place& place) {
  expect_dtype(scratch, "scratch", sum_dtype(x.dtype));
  expect_dense(scratch, "scratch");
  if (place.device >= 0 || kEmulated) {
    const auto [blocks, length, one] = scratch_shape(x, edge, 0, place);
    return expect_shape(scratch, "scratch", {blocks, length, one});
  }
  expect(scratch.dims == 3 && scratch.size[0] >= place.threads && scratch.size[2] == kRows,
         "scratch must be (threads, moments, 16)");
  const std::int64_t part = scratch.size[1] - 2 * edge;
  expect(part >= x.size[2] || part >= 2 * edge + 2, "scratch holds too few moments");
}

void run_forward(View x, View sos, View y, View gaps, View scratch, int pad, std::int64_t edge,
                 int on_gap, Place place) {
  expect_signals(x, y);
  expect_edge(x, pad, edge);
  expect_shape(gaps, "gaps", {x.size[0], x.size[1]});
  expect_dtype(gaps, "gaps", DType::i32);
  expect_dense(gaps, "gaps");
  expect(on_gap >= 0 && on_gap <= static_cast<int>(OnGap::interpolate), "on_gap is no OnGap");
  expect_scratch(scratch, x, edge, place);
  expect_place({x, y, gaps, scratch}, place);
  run(Forward{x, y, gaps, scratch, sections_of(sos, false), static_cast<Pad>(pad), edge,
              static_cast<OnGap>(on_gap)},
      rows(x), kRows, place, ECGFAST_LEVELS(forward));
}

void run_backward(View grad_y, View sos, View grad_x, View scratch, int pad, std::int64_t edge,
                  Place place) {
  expect_signals(grad_y, grad_x);
  expect_edge(grad_y, pad, edge);
  expect_scratch(scratch, grad_y, edge, place);
  expect_place({grad_y, grad_x, scratch}, place);
  run(Backward{grad_y, grad_x, scratch, sections_of(sos, false), static_cast<Pad>(pad), edge},
      rows(grad_y), kRows, place, ECGFAST_LEVELS(backward));
}

void expect_states(const View& z, const char* name, const View& x, const Sections& sections) {
  expect_shape(z, name, {x.size[0], x.size[1], sections.count, 2});
  expect_dtype(z, name, DType::f64);
  expect_dense(z, name);
}

void run_causal(View x, View sos, View zi, View y, View zf, View scratch, Place place) {
  const Sections sections = sections_of(sos, true);
  expect_signals(x, y);
  expect_states(zi, "zi", x, sections);
  expect_states(zf, "zf", x, sections);
  expect_scratch(scratch, x, 0, place);
  expect_place({x, zi, y, zf, scratch}, place);
  run(Causal{x, zi, y, zf, scratch, sections}, rows(x), kRows, place, ECGFAST_LEVELS(causal));
}

void run_causal_backward(View grad_y, View sos, View grad_zf, View grad_x, View grad_zi,
                         View scratch, Place place) {
  const Sections sections = sections_of(sos, true);
  expect_signals(grad_y, grad_x);
  expect_states(grad_zf, "grad_zf", grad_y, sections);
  expect_states(grad_zi, "grad_zi", grad_y, sections);
  expect_scratch(scratch, grad_y, 0, place);
  expect_place({grad_y, grad_zf, grad_x, grad_zi, scratch}, place);
  run(CausalBackward{grad_y, grad_zf, grad_x, grad_zi, scratch, sections}, rows(grad_y), kRows,
      place, ECGFAST_LEVELS(causal_backward));
}

}  // namespace

ECGFAST_BIND(sosfiltfilt, m) {
  const pybind11::call_guard<pybind11::gil_scoped_release> released;
  m.def("sosfiltfilt_scratch", &scratch_shape);
  m.def("sosfiltfilt_forward", &run_forward, released);
  m.def("sosfiltfilt_backward", &run_backward, released);
  m.def("sosfilt_forward", &run_causal, released);
  m.def("sosfilt_backward", &run_causal_backward, released);
}

}  // namespace ecgfast::sosfiltfilt
