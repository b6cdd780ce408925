// Sections from what a user gives.
#include "core/biquad.h"

#include <algorithm>
#include <cmath>

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

// To the last digit: near a pole close to 1 that digit shows.
bool is_sharp(const Row& s) { return s.b2 == s.b0; }

bool is_power_of_two(double value) {
  int exponent = 0;
  return std::fabs(std::frexp(value, &exponent)) == 0.5;
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
  // States that travel are scaled by every b0 but the first: exactly, or not at all.
  const bool scales = std::all_of(rows, end, has_gain) &&
                      (!keep_order || std::all_of(rows + 1, end, [](const Row& s) {
                        return is_power_of_two(s.b0);
                      }));
  out.form = scales ? Form::unit : Form::full;
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
  double following = 1;  // the level that one at the output of section k ends at
  for (int k = out.count - 1; k >= 0; --k) {
    out.rest[k] = following / (1 + out.a1[k] + out.a2[k]);
    following = out.rest[k] * (out.b0[k] + out.b1[k] + out.b2[k]);
  }
  return out;
}

namespace {

struct Matrix {
  double m[4];
};

Matrix operator*(const Matrix& a, const Matrix& b) {
  return {{a.m[0] * b.m[0] + a.m[1] * b.m[2], a.m[0] * b.m[1] + a.m[1] * b.m[3],
           a.m[2] * b.m[0] + a.m[3] * b.m[2], a.m[2] * b.m[1] + a.m[3] * b.m[3]}};
}

Matrix power(const Matrix& base, int exponent) {
  Matrix result{{1, 0, 0, 1}};
  for (int n = 0; n < exponent; ++n) result = result * base;
  return result;
}

template <typename A>
void set(A (&to)[4], const Matrix& from) {
  for (int i = 0; i < 4; ++i) to[i] = static_cast<A>(from.m[i]);
}

// The 2 x 2 step of drive_first: poles on the diagonal, or turned about it.
Matrix step_of(double a1, double a2) {
  const double middle = -a1 / 2;
  const double square = middle * middle - a2;
  if (square < 0) {
    const double turn = std::sqrt(-square);
    return {{middle, -turn, turn, middle}};
  }
  // The fast pole first: the slow one then has a small weight where a zero is near, and not two
  // large ones that cancel.
  const double slow = middle + std::copysign(std::sqrt(square), middle);
  return {{slow == 0 ? 0 : a2 / slow, 0, 1, slow}};
}

}  // namespace

template <typename A>
Modal<A> modal_of(const Sections& sections, ModalForm form) {
  Modal<A> out{};
  out.count = sections.count;
  out.gain = static_cast<A>(sections.gain);
  double level = sections.gain;
  for (int k = 0; k < sections.count; ++k) {
    ModalSection<A>& m = out.section[k];
    const double a1 = sections.a1[k];
    const double b0 = sections.b0[k];
    Matrix step = step_of(a1, sections.a2[k]);
    const double first = sections.b1[k] - b0 * a1;  // of what is left beside the direct way
    const double second = sections.b2[k] - b0 * sections.a2[k];
    const double weight[2] = {first, (second + first * step.m[3]) / step.m[2]};
    const Matrix own = step;
    const double det = (1 - own.m[0]) * (1 - own.m[3]) - own.m[1] * own.m[2];
    m.direct = static_cast<A>(b0);
    m.steady[0] = static_cast<A>(level * (1 - own.m[3]) / det);
    m.steady[1] = static_cast<A>(level * own.m[2] / det);
    const double sum = 1 + a1 + sections.a2[k];
    level *= (b0 + sections.b1[k] + sections.b2[k]) / sum;
    const double following = sections.rest[k] * sum;
    m.rest[0] =
        static_cast<A>(following * (weight[0] * (1 - own.m[3]) + weight[1] * own.m[2]) / det);
    m.rest[1] =
        static_cast<A>(following * (weight[0] * own.m[1] + weight[1] * (1 - own.m[0])) / det);
    if (form == ModalForm::read_first) std::swap(step.m[1], step.m[2]);
    m.scale = static_cast<A>(sections.scale[k]);
    m.to_s2[0] = static_cast<A>((own.m[0] + a1) * sections.scale[k]);
    m.to_s2[1] = static_cast<A>(own.m[2] * sections.scale[k]);
    for (int j = 0; j < 2; ++j) m.weight[j] = static_cast<A>(weight[j]);
    set(m.step, step);
    m.less[0] = static_cast<A>(step.m[0] - 1);
    m.less[1] = static_cast<A>(step.m[3] - 1);
    m.slow = std::max(step.m[0], step.m[3]) > 0.875;  // three binary digits are won
    for (int n = 0; n < kReply; ++n) {
      const Matrix at = power(step, n);
      const bool driven = form == ModalForm::drive_first;
      for (int j = 0; j < 2; ++j) {
        m.reply[n][j] =
            static_cast<A>(driven ? weight[0] * at.m[j] + weight[1] * at.m[2 + j] : at.m[j]);
      }
    }
    for (int j = 1; j < kChunk / kReply; ++j) set(m.jump[j - 1], power(step, j * kReply));
    Matrix leap = power(step, kChunk);
    for (auto& to : m.leap) {
      set(to, leap);
      leap = leap * leap;
    }
  }
  return out;
}

template Modal<float> modal_of<float>(const Sections& sections, ModalForm form);
template Modal<double> modal_of<double>(const Sections& sections, ModalForm form);

// Between sections a signal is as much larger as the gain is smaller, and float ends at 1e38. And
// what rounds in a section is nearly as large at the output: with 6 sections Butterworth filters
// and notches stay below 1e-6 of the peak of the output, with 8 narrow ones reach it.
bool needs_double(const Sections& sections) {
  return std::fabs(sections.gain) < 1e-30 || sections.count > 6;
}

}  // namespace ecgfast
