// The draws of a record, the same code on CPU and CUDA; see contract.h.
#pragma once

#include "augment/plan.h"

namespace ecgfast::augment {

// What the words of a counter are for, so that what is on or off leaves the other draws alone.
enum Purpose : std::uint32_t {
  kForNoise = 0,    // index, lead: the normals of samples
  kForRecord = 1,   // index 0: gain, sign, crop, shift; 1: SD of noise, b, c, phase of the mains;
                    // 2: q, count of bursts, of masks, whether to take a subset; 3: its size
  kForLead = 2,     // lead: lead_gain, place in the order of subsets, dropout
  kForWarp = 3,     // index j / 4, word j % 4: speed between knots j and j + 1
  kForWander = 4,   // index k: frequency, phase
  kForBurst = 5,    // index: first sample, length
  kForSegment = 6,  // index: length, first sample
};

ECGFAST_HD static inline PhiloxWords counter_for(Purpose purpose, std::int64_t lead,
                                                 std::int64_t index, std::int64_t id) {
  const PhiloxKey record = philox_key(id);  // the two halves of a number, here as elsewhere
  return {{static_cast<std::uint32_t>(index),
           static_cast<std::uint32_t>(purpose) << 24 | static_cast<std::uint32_t>(lead),
           record.word[0], record.word[1]}};
}

ECGFAST_HD static inline PhiloxWords words_for(Purpose purpose, std::int64_t lead,
                                               std::int64_t index, std::int64_t id, PhiloxKey key) {
  return philox(counter_for(purpose, lead, index, id), key);
}

ECGFAST_HD static inline double between_ends(const double* ends, std::uint32_t word) {
  return ends[0] + (ends[1] - ends[0]) * uniform(word);
}

ECGFAST_HD static inline double log_between_ends(const double* ends, std::uint32_t word) {
  return ends[0] == ends[1] ? ends[0] : ends[0] * exp(log(ends[1] / ends[0]) * uniform(word));
}

ECGFAST_HD static inline std::int64_t count_between_ends(const double* ends, std::uint32_t word) {
  return whole(ends[0]) + below(word, whole(ends[1] - ends[0]) + 1);
}

// How many leads the subset has; all if none is taken.
ECGFAST_HD static inline std::int64_t draw_size(const Spec& spec, std::int64_t leads,
                                                std::uint32_t taken, std::uint32_t which) {
  if (!(uniform(taken) < spec.subset)) return leads;
  const double u = uniform(which);
  int i = 0;
  while (i + 1 < whole(spec.sizes) && !(u < spec.size_until[i])) ++i;
  return whole(spec.size[i]);
}

// a_l of every lead, 0 for those left out. The plan's own columns hold the order meanwhile.
template <typename Plan>
ECGFAST_HD static inline void draw_leads(const Plan& plan, const Draw& job, std::int64_t id,
                                         PhiloxKey key, std::int64_t size, double factor) {
  const std::int64_t leads = job.leads;
  constexpr double kTaken = 0x1p33;  // above any word
  for (std::int64_t l = 0; l < leads; ++l) {
    plan[l] = size < leads ? words_for(kForLead, l, 0, id, key).word[1] : kTaken;
  }
  for (std::int64_t taken = 0; size < leads && taken < size; ++taken) {
    std::int64_t next = 0;  // the least that is not taken, the first of equals
    for (std::int64_t l = 1; l < leads; ++l) {
      if (plan[l] < plan[next]) next = l;
    }
    plan[next] = kTaken + taken;
  }
  std::int64_t kept = 0;
  std::int64_t last = 0;  // the one to keep if all drop out, and its draw
  double latest = -1;
  for (std::int64_t l = 0; l < leads; ++l) {
    const PhiloxWords words = words_for(kForLead, l, 0, id, key);
    const bool subset = plan[l] >= kTaken;
    const double u = uniform(words.word[2]);
    const double a = factor * log_between_ends(job.spec.lead_gain, words.word[0]);
    const bool stays = subset && !(u < job.spec.dropout);
    plan[l] = stays ? a : 0.0;
    kept += stays;
    if (subset && u > latest) {
      latest = u;
      last = l;
    }
  }
  if (kept > 0 || leads == 0) return;
  plan[last] =
      factor * log_between_ends(job.spec.lead_gain, words_for(kForLead, last, 0, id, key).word[0]);
}

// The plan of one record.
template <typename Plan>
ECGFAST_HD static inline void draw_record(const Plan& plan, const Draw& job, std::int64_t id,
                                          PhiloxKey key) {
  const Spec& spec = job.spec;
  const Columns column = columns_of(spec, job.leads);
  const PhiloxWords geometry = words_for(kForRecord, 0, 0, id, key);
  const PhiloxWords levels = words_for(kForRecord, 0, 1, id, key);
  const PhiloxWords counts = words_for(kForRecord, 0, 2, id, key);
  const PhiloxWords sizes = words_for(kForRecord, 0, 3, id, key);

  const std::int64_t reach = whole(spec.shift);
  const std::int64_t shift = below(geometry.word[3], 2 * reach + 1) - reach;
  const std::int64_t start = below(geometry.word[2], job.samples - job.length + 1);
  plan[kFirst] = static_cast<double>(start - shift);
  plan[kNoise] = between_ends(spec.noise, levels.word[0]);
  plan[kMains] = between_ends(spec.mains, levels.word[1]);
  plan[kMainsPhase] = uniform(levels.word[3]);
  plan[kWander] = between_ends(spec.wander, levels.word[2]);
  plan[kEmg] = between_ends(spec.emg, counts.word[0]);

  if (spec.warp > 0) {
    const std::int64_t pieces = whole(spec.knots) + 1;
    double all = 0;
    for (int pass = 0; pass < 2; ++pass) {  // the sum first, to scale by
      double sum = 0;
      for (std::int64_t j = 0; j < pieces; ++j) {
        if (pass == 1) {
          const double at = sum / all * static_cast<double>(job.samples - 1);
          plan[column.knots + j] = static_cast<double>(whole(at * 0x1p16));
        }
        const PhiloxWords speeds = words_for(kForWarp, 0, j / 4, id, key);
        sum += 1.0 + spec.warp * (2.0 * uniform(speeds.word[j % 4]) - 1.0);
      }
      all = sum;
    }
    plan[column.knots + pieces] = static_cast<double>(job.samples - 1) * 0x1p16;
  }
  for (std::int64_t k = 0; k < whole(spec.sines); ++k) {
    const PhiloxWords words = words_for(kForWander, 0, k, id, key);
    plan[column.sines + 2 * k] = between_ends(spec.wander_turns, words.word[0]);
    plan[column.sines + 2 * k + 1] = uniform(words.word[1]);
  }
  const std::int64_t bursts = count_between_ends(spec.bursts, counts.word[1]);
  for (std::int64_t i = 0; i < whole(spec.bursts[1]); ++i) {
    const PhiloxWords words = words_for(kForBurst, 0, i, id, key);
    const std::int64_t length = count_between_ends(spec.burst, words.word[1]);
    plan[column.bursts + 2 * i] = static_cast<double>(below(words.word[0], job.length));
    plan[column.bursts + 2 * i + 1] = i < bursts ? static_cast<double>(length) : 0.0;
  }
  const std::int64_t masks = count_between_ends(spec.masks, counts.word[2]);
  for (std::int64_t i = 0; i < whole(spec.masks[1]); ++i) {
    const PhiloxWords words = words_for(kForSegment, 0, i, id, key);
    const std::int64_t length = count_between_ends(spec.mask, words.word[0]);
    const std::int64_t begin = below(words.word[1], job.length - length + 1);
    plan[column.masks + 2 * i] = static_cast<double>(begin);
    plan[column.masks + 2 * i + 1] = i < masks ? static_cast<double>(length) : 0.0;
  }
  const double gain = log_between_ends(spec.gain, geometry.word[0]);
  const double sign = uniform(geometry.word[1]) < spec.flip ? -1.0 : 1.0;
  const std::int64_t size = draw_size(spec, job.leads, counts.word[3], sizes.word[0]);
  draw_leads(plan + column.leads, job, id, key, size, gain * sign);
}

}  // namespace ecgfast::augment
