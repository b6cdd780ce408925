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
  double rest[kMaxSections];       // sum of all outputs that s1 + s2 = 1 has once the input is over
};

// From sos (K, 6), dense float64 on the host: b0 b1 b2 1 a1 a2 a section, every pole inside the
// unit circle, else std::invalid_argument. Unless keep_order, a section without zeros on the unit
// circle goes to the front, where it costs less; only rounding and states show it. With it, scipy's
// states are a power of two times ours, so that they come and go without rounding.
Sections sections_of(const View& sos, bool keep_order);

// What CUDA kernels run instead: 40 samples a thread, 128 threads; replies to a state are tabulated
// for 8 samples at a time.
constexpr int kTile = 5120;
constexpr int kChunk = 40;
constexpr int kReply = 8;

// A section by its poles: a matrix that turns and shrinks the pair for complex ones, a triangular
// one for real ones, which may be equal.
//   drive_first   y = direct x + weight . s     s' = step s + (1, 0) x
//   read_first    y = direct x + s[0]           s' = step s + weight x
// The second one is the transpose of the first. It can have every state of the direct form.
enum class ModalForm { drive_first, read_first };

template <typename A>
struct ModalSection {
  A direct;
  A weight[2];
  A step[4];                       // row by row
  A less[2];                       // its diagonal less 1
  bool slow;                       // if that is small
  A reply[kReply][2];              // to a state, without input
  A jump[kChunk / kReply - 1][4];  // step^8, step^16, ...
  A leap[6][4];                    // step^40, step^80, step^160, ...
  A steady[2];                     // drive_first: the state after an endless 1 at the cascade
  A rest[2];  // drive_first: sum of all later outputs of the cascade that a state has
  A scale;    // scipy's states from read_first's: s1 = scale s[0], s2 = to_s2 . s
  A to_s2[2];
};

template <typename A>
struct Modal {
  int count;
  A gain;
  ModalSection<A> section[kMaxSections];
};

template <typename A>
Modal<A> modal_of(const Sections& sections, ModalForm form);  // for float and double

// True if float is not enough for CUDA kernels.
bool needs_double(const Sections& sections);

// How a signal goes on beyond its ends for zero-phase filtering, as scipy.signal names it:
//   odd 2 x[0] - x[j]     even x[j]     constant x[0]     and likewise about the last sample
enum class Pad : int { none = 0, odd = 1, even = 2, constant = 3 };

}  // namespace ecgfast
