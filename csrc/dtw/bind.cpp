// dtw for Python: guards memory, cuts the work, names the functions.
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <tuple>

#include "core/border.h"
#include "core/python.h"
#include "core/triangle.h"
#include "dtw/contract.h"

namespace ecgfast::dtw {
namespace {

#if defined(ECGFAST_EMULATED)
constexpr bool kEmulated = true;
#else
constexpr bool kEmulated = false;
#endif
constexpr std::int64_t kMostPairs = 64;                 // of a block on a device
constexpr std::int64_t kEdges = std::int64_t{1} << 26;  // floats of scratch that are always enough

using Shape = std::array<std::int64_t, 3>;

bool on_device(const Place& place) { return place.device >= 0 || kEmulated; }

std::int64_t padded_leads(std::int64_t leads) {
  expect(leads <= kMostDeviceLeads, "there are too many leads for a device");
  return leads <= 12 ? (leads + 3) / 4 * 4 : kMostDeviceLeads;
}

// Time-major on a device; the norms of all steps lie behind them.
Shape device_shape(std::int64_t n, std::int64_t leads, std::int64_t steps, bool expanded) {
  const std::int64_t padded = padded_leads(leads);
  return {n, steps + (expanded ? (steps + padded - 1) / padded : 0), padded};
}

// Packed rows of T samples, packed columns of as many, and scratch for pairs of T by U samples.
Shape rows_shape(std::int64_t n, std::int64_t leads, std::int64_t samples, bool expanded,
                 const Place& place) {
  if (on_device(place)) return device_shape(n, leads, samples + kBefore + kAfter, expanded);
  return {n, leads + expanded, (samples + kStrip - 1) / kStrip * kStrip};
}

Shape columns_shape(std::int64_t n, std::int64_t leads, std::int64_t samples, bool expanded,
                    const Place& place) {
  if (on_device(place)) return device_shape(n, leads, samples + kMostColumns, expanded);
  return {n, leads + expanded, samples + 2 * kPad};
}

std::array<std::int64_t, 2> scratch_shape(std::int64_t n, std::int64_t m, std::int64_t x_samples,
                                          std::int64_t y_samples, const Place& place) {
  if (!on_device(place)) return {place.threads, y_samples + 4 * kPad};
  const std::int64_t edge = (x_samples + kBefore + kAfter + 7) / 4 * 4;
  const std::int64_t pairs = n * ((m + kMostPairs - 1) / kMostPairs) * kMostPairs;
  const std::int64_t most = std::max(kMostPairs, kEdges / edge / kMostPairs * kMostPairs);
  return {std::min(pairs, most), edge};
}

std::tuple<Shape, Shape, std::array<std::int64_t, 2>> shapes(std::int64_t n, std::int64_t m,
                                                             std::int64_t leads,
                                                             std::int64_t x_samples,
                                                             std::int64_t y_samples, bool expanded,
                                                             Place place) {
  return {rows_shape(n, leads, x_samples, expanded, place),
          columns_shape(m, leads, y_samples, expanded, place),
          scratch_shape(n, m, x_samples, y_samples, place)};
}

void expect_shape(const View& view, const char* name, const Shape& shape) {
  ecgfast::expect_shape(view, name, {shape[0], shape[1], shape[2]});
}

void expect_computed(const View& view, const char* name) {
  expect(view.dtype == DType::f32 || (view.dtype == DType::f64 && !kEmulated && view.device < 0),
         std::string(name) + " has a dtype without a kernel");
}

void expect_flags(const View& flags, const char* name, std::int64_t records) {
  ecgfast::expect_shape(flags, name, {records});
  expect_dtype(flags, name, DType::i32);
  expect_dense(flags, name);
}

// Their values cannot be looked at here: kernels trust them as they trust pointers.
void expect_lengths(const View& lengths, const char* name, std::int64_t records) {
  ecgfast::expect_shape(lengths, name, {lengths.size[0] == 0 ? 0 : records});
  expect_dtype(lengths, name, DType::i64);
  expect_dense(lengths, name);
}

void run_prepare(View x, View length, View rows, View columns, View finite, bool expanded,
                 Place place) {
  expect(x.dims == 3 && x.size[1] > 0 && x.size[2] > 0, "x must be (N, L, T) with L, T > 0");
  expect_computed(x, "x");
  expect_dense_last(x, "x");
  const std::int64_t n = x.size[0];
  expect(n <= INT32_MAX && x.size[1] * x.size[2] <= INT32_MAX / 2, "x is too large");
  expect_lengths(length, "length", n);
  if (rows.size[0] != 0) {
    expect_shape(rows, "rows", rows_shape(n, x.size[1], x.size[2], expanded, place));
  }
  if (columns.size[0] != 0) {
    expect_shape(columns, "columns", columns_shape(n, x.size[1], x.size[2], expanded, place));
  }
  for (const View& form : {rows, columns}) {
    expect_dtype(form, "a packed form", x.dtype);
    expect_dense(form, "a packed form");
  }
  expect_flags(finite, "finite", n);
  expect_place({x, length, rows, columns, finite}, place);
  run(Prepare{x, length, rows, columns, finite, expanded}, n, 1, place, ECGFAST_LEVELS(prepare));
}

void run_forward(View rows, View columns, View x_length, View y_length, View x_finite,
                 View y_finite, View scratch, View distance, std::int64_t leads,
                 std::int64_t x_samples, std::int64_t y_samples, int cost, std::int64_t radius,
                 double fraction, bool root, bool same, Place place) {
  expect(distance.dims == 2, "distance must be (N, M)");
  const std::int64_t n = distance.size[0];
  const std::int64_t m = distance.size[1];
  expect(leads > 0 && x_samples > 0 && y_samples > 0, "there must be leads and samples");
  expect(leads * x_samples <= INT32_MAX / 2 && leads * y_samples <= INT32_MAX / 2,
         "records are too large");
  expect(n <= INT32_MAX && m <= INT32_MAX, "there are too many records");
  expect(!same || (n == m && x_samples == y_samples), "y must be x itself");
  expect(cost >= 0 && cost <= static_cast<int>(Cost::expanded), "there is no such cost");
  expect(radius >= 0 && radius <= x_samples + y_samples, "radius must be in [0, T + U]");
  expect(fraction <= 1, "fraction must be at most 1");
  expect_computed(distance, "distance");
  expect_dense(distance, "distance");
  const bool expanded = static_cast<Cost>(cost) == Cost::expanded;
  expect_shape(rows, "rows", rows_shape(n, leads, x_samples, expanded, place));
  expect_shape(columns, "columns", columns_shape(m, leads, y_samples, expanded, place));
  const auto room = scratch_shape(n, m, x_samples, y_samples, place);
  ecgfast::expect_shape(scratch, "scratch", {room[0], room[1]});
  for (const View& form : {rows, columns, scratch}) {
    expect_dtype(form, "a packed form", distance.dtype);
    expect_dense(form, "a packed form");
  }
  expect_lengths(x_length, "x_length", n);
  expect_lengths(y_length, "y_length", m);
  expect_flags(x_finite, "x_finite", n);
  expect_flags(y_finite, "y_finite", m);
  expect_place({rows, columns, x_length, y_length, x_finite, y_finite, scratch, distance}, place);
  expect(n == 0 || m <= INT32_MAX / n, "there are too many pairs");

  const bool banded = fraction >= 0 ? fraction < 1 : radius < std::max(x_samples, y_samples) - 1;
  const std::int64_t pairs = same ? triangle_size(n) : n * m;
  const std::int64_t grain = 1 + 131072 / (x_samples * y_samples);
  run(Forward{rows, columns, x_length, y_length, x_finite, y_finite, scratch, distance,
              static_cast<Cost>(cost), leads, x_samples, y_samples, radius, fraction, root, same,
              banded},
      pairs, grain, place, ECGFAST_LEVELS(forward));
}

}  // namespace

ECGFAST_BIND(dtw, m) {
  const pybind11::call_guard<pybind11::gil_scoped_release> released;
  m.def("dtw_shapes", &shapes);
  m.def("dtw_prepare", &run_prepare, released);
  m.def("dtw_forward", &run_forward, released);
}

}  // namespace ecgfast::dtw
