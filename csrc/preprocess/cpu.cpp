// CPU kernels of preprocess, compiled once for each instruction set; see contract.h.
#include "preprocess/group.h"

namespace ecgfast::preprocess::ECGFAST_ISA {
namespace {

template <typename X, typename Y, typename T>
void run_rows(const Preprocess& job, std::int64_t begin, std::int64_t end, T* scratch) {
  const std::int64_t count = (end - begin + kGroup - 1) / kGroup;
  const std::int64_t size = job.moments * kGroup;
  T* spare = scratch + count * size;
  Group<T>* const groups = reinterpret_cast<Group<T>*>(spare + size);
  int next = 0;
  for (int from = 0; from <= job.steps; from = next + 1) {
    for (next = from; next < job.steps && !spans_record(job.step[next]); ++next) {
    }
    for (std::int64_t g = 0; g < count; ++g) {
      Group<T>& group = groups[g];
      if (from == 0) {
        group = group_of<T>(begin + g * kGroup, end);
        group.buffer = scratch + g * size;
        group.first = group.buffer + job.front * kGroup;
        load_group<X>(job, group);
      }
      for (int s = from; s < next; ++s) {
        const Step& step = job.step[s];
        if (step.kind == Kind::filter) {
          const Filter& filter = step.filter;
          extend(filter.pad, filter.edge, group.first, group.samples);
          filter_both_ways(*filter.sections, group.first - filter.edge * kGroup,
                           group.samples + 2 * filter.edge);
        } else if (step.kind == Kind::normalise) {
          normalise(job, step.normalise, &group, group.count);
        } else if (step.kind == Kind::crop) {
          group.first += step.start * kGroup;
        } else {
          T* const before = group.buffer;
          resample(step, group, spare, spare + job.front * kGroup);
          spare = before;
        }
        group.samples = step.samples;
      }
      if (next == job.steps) store_group<X, Y>(job, group);
    }
    if (next < job.steps) normalise(job, job.step[next].normalise, groups, end - begin);
  }
}

template <typename X, typename Y, typename T>
void run_part(const Preprocess& job, Range part) {
  T* const scratch = static_cast<T*>(job.scratch.data) + part.worker * job.scratch.stride[0];
  const std::int64_t leads = job.x.size[1];
  if (job.by_record) {
    run_rows<X, Y>(job, part.begin * leads, part.end * leads, scratch);
    return;
  }
  for (std::int64_t r = part.begin; r < part.end; r += kGroup) {
    run_rows<X, Y>(job, r, r + kGroup < part.end ? r + kGroup : part.end, scratch);
  }
}

}  // namespace

void preprocess(const Preprocess& job, Range part) {
  const FlushSubnormals calm;
  const auto from = [&](auto x) {
    using X = decltype(x);
    const auto to = [&](auto y, auto work) { run_part<X, decltype(y), decltype(work)>(job, part); };
    if (job.wide) {
      return job.y.dtype == DType::f64   ? to(double{}, double{})
             : job.y.dtype == DType::f32 ? to(float{}, double{})
                                         : to(std::uint16_t{}, double{});
    }
    return job.y.dtype == DType::f32 ? to(float{}, float{}) : to(std::uint16_t{}, float{});
  };
  if (job.x.dtype == DType::i16) return from(std::int16_t{});
  if (job.x.dtype == DType::f32) return from(float{});
  from(double{});
}

}  // namespace ecgfast::preprocess::ECGFAST_ISA
