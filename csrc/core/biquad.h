// Second-order sections as kernels take them: plain numbers, worked out once on the host in double.
// The recursions over them are in core/biquad_lanes.h (CPU) and core/biquad.cuh (CUDA).
#pragma once

#include "core/view.h"

namespace ecgfast {

constexpr int kMaxSections = 16;

// How much of a section is left to multiply. A cascade has the gain that `unit` takes out of b0 in
// one place. full: as given. unit: b0 is 1. sharp: b2 is 1 as well, zeros on the unit circle, as in
// the sections of Butterworth filters of even order and of notches.
enum class Form : int { full = 0, unit = 1, sharp = 2 };

// A cascade in transposed direct form II, as scipy.signal.sosfilt runs it, on gain * x:
//   y = b0 x + s1     s1' = b1 x - a1 y + s2     s2' = b2 x - a2 y
// With `plain` 1 the first section has the form `unit` and the others `form`; else plain is 0.
struct Sections {
  int count;
  int plain;
  Form form;
  double gain;
  double b0[kMaxSections], b1[kMaxSections], b2[kMaxSections];
  double a1[kMaxSections], a2[kMaxSections];
  double steady[kMaxSections][2];  // the states (s1, s2) after an endless input of 1
  double scale[kMaxSections];      // scipy's states, which keep every b0 in its place, over these
};

// From sos (K, 6), dense float64 on the host: b0 b1 b2 1 a1 a2 a section, every pole inside the
// unit circle, else std::invalid_argument. Unless keep_order, a section without zeros on the unit
// circle goes to the front, where it costs less; only rounding and states show it.
Sections sections_of(const View& sos, bool keep_order);

// How a signal goes on beyond its ends for zero-phase filtering, as scipy.signal names it:
//   odd 2 x[0] - x[j]     even x[j]     constant x[0]     and likewise about the last sample
enum class Pad : int { none = 0, odd = 1, even = 2, constant = 3 };

}  // namespace ecgfast
