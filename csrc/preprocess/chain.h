// What the CPU and the CUDA kernels of preprocess read off a job. Every function is static.
#pragma once

#include <cstring>

#include "core/dispatch.h"
#include "preprocess/contract.h"

namespace ecgfast::preprocess {
namespace {  // no instruction set may lend its code to another

ECGFAST_HD inline bool spans_record(const Step& step) {
  return step.kind == Kind::normalise && step.normalise.record;
}

// Dynamic shared memory of a block.
inline std::int64_t shared_bytes(const Preprocess& job) {
  const std::int64_t rows = job.by_record ? job.x.size[1] : 0;
  return (job.buffers * job.moments + rows) * (job.wide ? 8 : 4);
}

// The sample of x that lies nearest to sample k of y.
ECGFAST_HD inline std::int64_t nearest(const Preprocess& job, std::int64_t k) {
  const std::int64_t twice = 2 * (k * job.origin.step + job.origin.first) + job.origin.parts;
  const std::int64_t place = twice / (2 * job.origin.parts);
  const std::int64_t last = job.x.size[2] - 1;
  return place < last ? place : last;
}

ECGFAST_HD inline bool is_missing(const Preprocess& job, std::int16_t x) {
  return job.has_missing && x == job.missing;
}
template <typename X>
ECGFAST_HD inline bool is_missing(const Preprocess&, X x) {
  return is_gap(x);
}

// mV of a stored sample.
template <typename T>
struct Scale {
  T gain, offset;
  ECGFAST_HD Scale(double gain_given, double offset_given)
      : gain(gain_given), offset(offset_given) {}
  template <typename X>
  ECGFAST_HD T operator()(X x) const {
    return static_cast<T>(static_cast<acc_t<X>>(x)) * gain + offset;
  }
};
// In float the gain and the offset come in two parts. The 16 bits of a code times the 8 of the
// first part are exact, and what is left is added once the large parts have cancelled.
template <>
struct Scale<float> {
  float gain, rest_of_gain, offset, rest_of_offset;
  ECGFAST_HD Scale(double gain_given, double offset_given)
      : gain(leading(static_cast<float>(gain_given))),
        rest_of_gain(static_cast<float>(gain_given - gain)),
        offset(static_cast<float>(offset_given)),
        rest_of_offset(static_cast<float>(offset_given - offset)) {}
  template <typename X>
  ECGFAST_HD float operator()(X given) const {
    const float x = static_cast<float>(given);
    return (x * gain + offset) + (x * rest_of_gain + rest_of_offset);
  }
  ECGFAST_HD static float leading(float value) {
    std::uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    bits &= 0xffff0000;
    memcpy(&value, &bits, sizeof bits);
    return value;
  }
};

}  // namespace
}  // namespace ecgfast::preprocess
