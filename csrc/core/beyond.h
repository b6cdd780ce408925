// What a moving window finds beyond the ends of a signal, as scipy.ndimage names it, and the value
// of a sample whose gaps are filled.
#pragma once

#include "core/gaps.h"

namespace ecgfast {

// For a b c: nearest a a|a b c|c c, reflect b a|a b c|c b, mirror c b|a b c|b a, constant zeros,
// wrap b c|a b c|a b; further out the same goes on.
enum class Beyond : int { nearest = 0, reflect = 1, mirror = 2, constant = 3, wrap = 4 };

// The sample that stands at i, of a signal of `samples`; -1 for a zero.
ECGFAST_HD static inline std::int64_t sample_at(Beyond beyond, std::int64_t i,
                                                std::int64_t samples) {
  if (i >= 0 && i < samples) return i;
  if (beyond == Beyond::constant) return -1;
  if (beyond == Beyond::nearest || samples == 1) return i < 0 ? 0 : samples - 1;
  const bool twice = beyond == Beyond::reflect || beyond == Beyond::mirror;
  const std::int64_t once = beyond == Beyond::mirror ? samples - 1 : samples;
  const std::int64_t period = twice ? 2 * once : once;
  std::int64_t at = i % period;
  if (at < 0) at += period;
  if (at < samples) return at;
  return beyond == Beyond::mirror ? period - at : period - 1 - at;
}

// Sample i of a dense row, filled if it is a gap: for the few of which that is asked.
template <typename A, typename Row>
ECGFAST_HD static inline A filled_at(const Row& row, std::int64_t i, std::int64_t samples,
                                     OnGap how) {
  const A value = static_cast<A>(row[i]);
  if (how == OnGap::keep || !is_gap(value)) return value;
  if (how == OnGap::zero) return A(0);
  std::int64_t before = i - 1;
  while (before >= 0 && is_gap(static_cast<A>(row[before]))) --before;
  std::int64_t after = i + 1;
  while (after < samples && is_gap(static_cast<A>(row[after]))) ++after;
  if (after == samples) after = -1;
  const A left = before < 0 ? A(0) : static_cast<A>(row[before]);
  const A right = after < 0 ? A(0) : static_cast<A>(row[after]);
  return across_gap(i, before, left, after, right);
}

}  // namespace ecgfast
