// soft_dtw for Python: guards memory, cuts the work, names the functions.
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "core/border.h"
#include "core/python.h"
#include "core/triangle.h"
#include "soft_dtw/contract.h"
#include "soft_dtw/device.h"

namespace ecgfast::soft_dtw {
namespace {

#if defined(ECGFAST_EMULATED)
constexpr bool kEmulated = true;
#else
constexpr bool kEmulated = false;
#endif
constexpr std::int64_t kPartials = std::int64_t{1} << 24;  // elements of gradients before the sum
constexpr std::int64_t kScratch = std::int64_t{1} << 27;   // floats of a device, always enough
constexpr std::int64_t kFewestPairs = 16;                  // of a batch, however long

using Shape = std::array<std::int64_t, 3>;

struct Sizes {
  std::int64_t n, m, leads, x_samples, y_samples;
  Pairs pairs;
};

bool on_device(const Place& place) { return place.device >= 0 || kEmulated; }

std::int64_t padded_leads(std::int64_t leads) {
  expect(leads <= kMostDeviceLeads, "there are too many leads for a device");
  return leads <= 12 ? (leads + 3) / 4 * 4 : kMostDeviceLeads;
}

std::int64_t pairs_of(const Sizes& of) {
  if (of.pairs == Pairs::aligned) return of.n;
  return of.pairs == Pairs::same ? triangle_size(of.n) : of.n * of.m;
}

Shape rows_shape(std::int64_t n, std::int64_t leads, std::int64_t samples, const Place& place) {
  if (on_device(place)) return {n, samples + kBefore + kAfter, padded_leads(leads)};
  return {n, leads, (samples + kStrip - 1) / kStrip * kStrip};
}

Shape columns_shape(std::int64_t n, std::int64_t leads, std::int64_t samples, const Place& place) {
  if (on_device(place)) return {n, samples + 128, padded_leads(leads)};
  return {n, leads, samples + 2 * kPad};
}

// Of how many rows, and of how many columns, of a pair's R forward keeps one; 0: none at all.
std::array<std::int64_t, 2> kept_of(bool cuda) {
  if (cuda || kEmulated) return {0, 0};  // there R is made again
  return {kStrip, 1};
}

Shape kept_shape(const Sizes& of, const Place& place) {
  const auto [rows, columns] = kept_of(place.device >= 0);
  if (rows == 0) return {0, 0, 0};
  return {pairs_of(of), (of.x_samples + rows - 1) / rows, (of.y_samples + columns - 1) / columns};
}

// How many pairs a batch of gradients has.
std::int64_t batch_of(const Sizes& of, const Place& place) {
  const std::int64_t pairs = pairs_of(of);
  if (of.pairs == Pairs::aligned) return pairs;
  const std::int64_t most = kPartials * (on_device(place) ? 4 : 1);
  const std::int64_t room = most / (of.leads * (of.x_samples + of.y_samples));
  return std::min(pairs, std::max(kFewestPairs, room));
}

// Floats for `pairs` of them on a device, which takes them a few warps at a time where all would
// be too many.
std::int64_t scratch_of(std::int64_t pairs, std::int64_t of_a_warp, std::int64_t size) {
  const std::int64_t wanted = (pairs + of_a_warp - 1) / of_a_warp * of_a_warp;
  return std::min(wanted, std::max(of_a_warp, kScratch / size)) * size;
}

// For each thread of the CPU; for `pairs` that a device is to have in hand at once.
Shape forward_scratch(const Sizes& of, std::int64_t pairs, const Place& place) {
  if (on_device(place)) {
    return {1, 1, scratch_of(pairs, kMostPairs, column_size(of.x_samples))};
  }
  return {place.threads, 1, of.y_samples + 4 * kPad};
}

Shape backward_scratch(const Sizes& of, std::int64_t pairs, const Place& place) {
  if (on_device(place)) {
    const auto need = [&](bool with_band) {
      const Room room = room_of(padded_leads(of.leads), of.x_samples, of.y_samples, with_band);
      expect(room.size <= INT32_MAX, "records are too long for a device");
      return scratch_of(pairs, 32 / lanes_of(with_band), room.size);
    };
    return {1, 1, std::max(need(false), need(true))};
  }
  const std::int64_t columns = of.y_samples + 4 * kPad;
  // a row of R, two of flows, a gradient of columns, then four values a cell of a strip
  return {place.threads, 3 + of.leads + 4 * kStrip, columns};
}

std::vector<Shape> shapes(std::int64_t n, std::int64_t m, std::int64_t leads,
                          std::int64_t x_samples, std::int64_t y_samples, int pairs, Place place) {
  const Sizes of{n, m, leads, x_samples, y_samples, static_cast<Pairs>(pairs)};
  const std::int64_t batch = batch_of(of, place);
  return {rows_shape(n, leads, x_samples, place),
          columns_shape(m, leads, y_samples, place),
          forward_scratch(of, pairs_of(of), place),
          backward_scratch(of, batch, place),
          {batch, leads, x_samples},
          {batch, leads, y_samples}};
}

void expect_shape(const View& view, const char* name, const Shape& shape) {
  ecgfast::expect_shape(view, name, {shape[0], shape[1], shape[2]});
}

std::int64_t any(const Sizes& of) { return pairs_of(of) > 0 ? 1 : 0; }

// A device makes do with what a warp needs, or anything more.
void expect_scratch(const View& scratch, const Shape& fewest, const Place& place) {
  const bool more = on_device(place) && scratch.dims == 3 && scratch.size[2] > fewest[2];
  expect_shape(scratch, "scratch", more ? Shape{1, 1, scratch.size[2]} : fewest);
}

void expect_computed(const View& view, const char* name) {
  expect(view.dtype == DType::f32 || (view.dtype == DType::f64 && !kEmulated && view.device < 0),
         std::string(name) + " has a dtype without a kernel");
}

void expect_alike(std::initializer_list<View> views, const View& like, const char* name) {
  for (const View& view : views) {
    expect_dtype(view, name, like.dtype);
    expect_dense(view, name);
  }
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

void run_prepare(View x, View length, View rows, View columns, View finite, double scale,
                 Place place) {
  expect(x.dims == 3 && x.size[1] > 0 && x.size[2] > 0, "x must be (N, L, T) with L, T > 0");
  expect_computed(x, "x");
  expect_dense_last(x, "x");
  const std::int64_t n = x.size[0];
  expect(n <= INT32_MAX && x.size[1] * x.size[2] <= INT32_MAX / 2, "x is too large");
  expect_lengths(length, "length", n);
  if (rows.size[0] != 0) {
    expect_shape(rows, "rows", rows_shape(n, x.size[1], x.size[2], place));
  }
  if (columns.size[0] != 0) {
    expect_shape(columns, "columns", columns_shape(n, x.size[1], x.size[2], place));
  }
  expect_alike({rows, columns}, x, "a packed form");
  expect_flags(finite, "finite", n);
  expect(std::isfinite(scale) && scale > 0, "scale must be positive");
  expect_place({x, length, rows, columns, finite}, place);
  run(Prepare{x, length, rows, columns, finite, scale}, n, 1, place, ECGFAST_LEVELS(prepare));
}

// What both directions share, (N, M) or (N,) apart.
Sizes expect_sides(const View& value, const View& rows, const View& columns, const View& x_length,
                   const View& y_length, std::int64_t leads, std::int64_t x_samples,
                   std::int64_t y_samples, int pairs, std::int64_t radius, double fraction,
                   const Place& place) {
  expect(pairs >= 0 && pairs <= static_cast<int>(Pairs::aligned), "there are no such pairs");
  const bool aligned = static_cast<Pairs>(pairs) == Pairs::aligned;
  expect(value.dims == (aligned ? 1 : 2), "value must be (N, M), of aligned pairs (N,)");
  const std::int64_t n = value.size[0];
  const std::int64_t m = value.size[aligned ? 0 : 1];
  const Sizes of{n, m, leads, x_samples, y_samples, static_cast<Pairs>(pairs)};
  expect(leads > 0 && x_samples > 0 && y_samples > 0, "there must be leads and samples");
  expect(leads * x_samples <= INT32_MAX / 2 && leads * y_samples <= INT32_MAX / 2,
         "records are too large");
  expect(n <= INT32_MAX && m <= INT32_MAX, "there are too many records");
  expect(of.pairs != Pairs::same || (n == m && x_samples == y_samples), "y must be x itself");
  expect(radius >= 0 && radius <= x_samples + y_samples, "radius must be in [0, T + U]");
  expect(fraction <= 1, "fraction must be at most 1");
  expect_computed(value, "value");
  expect_shape(rows, "rows", rows_shape(n, leads, x_samples, place));
  expect_shape(columns, "columns", columns_shape(m, leads, y_samples, place));
  expect_alike({value, rows, columns}, value, "a value or a packed form");
  expect_lengths(x_length, "x_length", n);
  expect_lengths(y_length, "y_length", m);
  expect(n == 0 || m <= INT32_MAX / n, "there are too many pairs");
  return of;
}

bool banded(const Sizes& of, std::int64_t radius, double fraction) {
  return fraction >= 0 ? fraction < 1 : radius < std::max(of.x_samples, of.y_samples) - 1;
}

std::int64_t grain(const Sizes& of) { return 1 + 32768 / (of.x_samples * of.y_samples); }

void run_forward(View rows, View columns, View x_length, View y_length, View x_finite,
                 View y_finite, View scratch, View value, View kept, std::int64_t leads,
                 std::int64_t x_samples, std::int64_t y_samples, int pairs, double unit,
                 std::int64_t radius, double fraction, Place place) {
  const Sizes of = expect_sides(value, rows, columns, x_length, y_length, leads, x_samples,
                                y_samples, pairs, radius, fraction, place);
  expect_flags(x_finite, "x_finite", of.n);
  expect_flags(y_finite, "y_finite", of.m);
  expect_scratch(scratch, forward_scratch(of, any(of), place), place);
  if (kept.size[0] != 0) expect_shape(kept, "kept", kept_shape(of, place));
  expect_alike({scratch, kept}, value, "scratch or what is kept");
  expect_place({rows, columns, x_length, y_length, x_finite, y_finite, scratch, value, kept},
               place);
  run(Forward{rows, columns, x_length, y_length, x_finite, y_finite, scratch, value, kept, of.pairs,
              unit, leads, x_samples, y_samples, radius, fraction, banded(of, radius, fraction)},
      pairs_of(of), grain(of), place, ECGFAST_LEVELS(forward));
}

void run_backward(View rows, View columns, View x_length, View y_length, View value, View grad,
                  View kept, View scratch, View x_partial, View y_partial, View grad_x, View grad_y,
                  std::int64_t leads, std::int64_t x_samples, std::int64_t y_samples, int pairs,
                  double scale, std::int64_t radius, double fraction, Place place) {
  const Sizes of = expect_sides(value, rows, columns, x_length, y_length, leads, x_samples,
                                y_samples, pairs, radius, fraction, place);
  const bool aligned = of.pairs == Pairs::aligned;
  const bool same = of.pairs == Pairs::same;
  aligned ? ecgfast::expect_shape(grad, "grad", {of.n})
          : ecgfast::expect_shape(grad, "grad", {of.n, of.m});
  expect_shape(kept, "kept", kept_shape(of, place));
  expect_scratch(scratch, backward_scratch(of, any(of), place), place);
  const std::int64_t batch = x_partial.size[0];
  const std::int64_t all = pairs_of(of);
  expect(all == 0 || (batch > 0 && batch <= all), "a batch must have pairs");
  expect(!aligned || batch == all, "aligned pairs are one batch");
  expect_shape(x_partial, "x_partial", {batch, leads, x_samples});
  expect_shape(y_partial, "y_partial", {batch, leads, y_samples});
  expect_shape(grad_x, "grad_x", {aligned ? 0 : of.n, leads, x_samples});
  expect_shape(grad_y, "grad_y", {aligned || same ? 0 : of.m, leads, y_samples});
  expect_alike({kept, scratch, x_partial, y_partial, grad_x, grad_y, grad}, value, "a gradient");
  expect_place({rows, columns, x_length, y_length, value, grad, kept, scratch, x_partial, y_partial,
                grad_x, grad_y},
               place);
  expect(std::isfinite(scale) && scale > 0, "scale must be positive");
  std::int64_t first = 0;
  do {
    const std::int64_t count = std::min(batch, all - first);
    x_partial.size[0] = y_partial.size[0] = count;
    run(Backward{rows,  columns,   x_length,  y_length,  value,    grad,
                 kept,  scratch,   x_partial, y_partial, of.pairs, scale,
                 leads, x_samples, y_samples, radius,    fraction, banded(of, radius, fraction),
                 first, count},
        count, grain(of), place, ECGFAST_LEVELS(backward));
    if (aligned) return;
    const std::int64_t records = of.n + (same ? 0 : of.m);
    run(Gather{x_partial, y_partial, grad_x, grad_y, of.pairs, first, count}, records * leads, 1,
        place, ECGFAST_LEVELS(gather));  // zeros, if there are no pairs
    first += batch;
  } while (first < all);
}

}  // namespace

ECGFAST_BIND(soft_dtw, m) {
  const pybind11::call_guard<pybind11::gil_scoped_release> released;
  m.def("soft_dtw_shapes", &shapes);
  m.def("soft_dtw_kept", &kept_of);
  m.def("soft_dtw_prepare", &run_prepare, released);
  m.def("soft_dtw_forward", &run_forward, released);
  m.def("soft_dtw_backward", &run_backward, released);
}

}  // namespace ecgfast::soft_dtw
