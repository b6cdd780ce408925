// Sections from what a user gives.
#include "core/biquad.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/border.h"

namespace ecgfast {
namespace {

struct Row {
  double b0, b1, b2, a0, a1, a2;
};

bool stable(const Row& s) {  // both roots of z^2 + a1 z + a2 inside the unit circle; false for NaN
  return std::fabs(s.a2) < 1 && std::fabs(s.a1) < 1 + s.a2;
}

// A b0 far below the rest would make huge numbers of b1 and b2.
bool has_gain(const Row& s) {
  return std::fabs(s.b0) > 1e-3 * std::max(std::fabs(s.b1), std::fabs(s.b2));
}

// Designs compute b2 as |zero|^2: a unit in the last place off is where rounding left it.
bool is_sharp(const Row& s) {
  return std::fabs(s.b2 / s.b0 - 1) <= 2 * std::numeric_limits<double>::epsilon();
}

}  // namespace

Sections sections_of(const View& sos, bool keep_order) {
  expect(sos.dims == 2 && sos.size[0] > 0 && sos.size[1] == 6, "sos must be (K, 6) with K > 0");
  expect(sos.size[0] <= kMaxSections, "sos has too many sections");
  expect(sos.device < 0, "sos must be on the CPU");
  expect_dtype(sos, "sos", DType::f64);
  expect_dense(sos, "sos");
  expect(sos.data != nullptr, "sos has no memory");

  Sections out{};
  out.count = static_cast<int>(sos.size[0]);
  Row rows[kMaxSections];
  const Row* const given = static_cast<const Row*>(sos.data);
  std::copy(given, given + out.count, rows);
  Row* const end = rows + out.count;
  for (int k = 0; k < out.count; ++k) {
    expect(
        rows[k].a0 == 1 && stable(rows[k]) && std::isfinite(rows[k].b0 + rows[k].b1 + rows[k].b2),
        "sos has a section that is not finite, not stable, or whose a0 is not 1");
  }
  out.form = std::all_of(rows, end, has_gain) ? Form::unit : Form::full;
  if (out.form == Form::unit) {
    if (!keep_order) {
      std::stable_sort(rows, end,
                       [](const Row& s, const Row& r) { return is_sharp(s) < is_sharp(r); });
    }
    out.plain = is_sharp(rows[0]) ? 0 : 1;
    if (std::all_of(rows + out.plain, end, is_sharp)) out.form = Form::sharp;
    if (out.form == Form::unit) out.plain = 0;
  }

  out.gain = 1;
  double scale = 1;
  for (int k = out.count - 1; k >= 0; --k) {
    const double b0 = out.form == Form::full ? 1 : rows[k].b0;
    out.scale[k] = 1 / scale;
    scale *= b0;
    out.b0[k] = rows[k].b0 / b0;
    out.b1[k] = rows[k].b1 / b0;
    out.b2[k] = rows[k].b2 / b0;
    out.a1[k] = rows[k].a1;
    out.a2[k] = rows[k].a2;
  }
  out.gain = scale;

  double level = out.gain;  // of the signal between the sections
  for (int k = 0; k < out.count; ++k) {
    const double in = level;
    level *= (out.b0[k] + out.b1[k] + out.b2[k]) / (1 + out.a1[k] + out.a2[k]);
    out.steady[k][1] = out.b2[k] * in - out.a2[k] * level;
    out.steady[k][0] = out.b1[k] * in - out.a1[k] * level + out.steady[k][1];
  }
  return out;
}

}  // namespace ecgfast
