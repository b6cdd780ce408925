// preprocess for Python: guards memory, lays the scratch out, cuts the work, names the functions.
#include <pybind11/stl.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "core/border.h"
#include "core/python.h"
#include "preprocess/chain.h"

namespace ecgfast::preprocess {
namespace {

constexpr std::int64_t kMostTerm = 10000;         // of a ratio of rates
constexpr std::int64_t kMostSamples = 1LL << 31;  // of a row, before and after each step
constexpr std::int64_t kMostParts = 1LL << 28;    // of a sample, that a moment is told in
constexpr std::int64_t kMostShared = 156 * 1024;  // bytes of a block, on sm_80 with what is fixed
#if defined(ECGFAST_EMULATED)
constexpr bool kEmulated = true;
#else
constexpr bool kEmulated = false;
#endif
constexpr bool kStoresBfloat16 = !kEmulated;  // the emulator has no half types

// What the steps need besides the job, for as long as it runs.
using Kept = std::vector<Sections>;

// Columns of a row of the plan, as ecgfast/ops/preprocess.py writes it.
struct Words {
  std::int64_t kind, a, b, c, d, e, f, g;
};

View part_of(const View& all, std::int64_t at, std::int64_t rows, std::int64_t columns,
             const char* name) {
  expect(all.dims == 1 && rows > 0 && columns > 0 && at >= 0 && at <= all.size[0] &&
             rows <= (all.size[0] - at) / columns,
         std::string(name) + " has fewer elements than a step takes");
  const std::int64_t bytes = all.dtype == DType::f64 ? 8 : 4;
  View part = all;
  part.data = static_cast<char*>(all.data) + at * bytes;
  part.dims = 2;
  part.size[0] = rows;
  part.size[1] = columns;
  part.stride[0] = columns;
  part.stride[1] = 1;
  return part;
}

// Room that a step needs in a buffer before and behind `samples` samples.
struct Room {
  std::int64_t before = 0, behind = 0;
};

Resample resample_of(const Words& w, const View& taps) {
  expect(w.a > 0 && w.b > 0 && w.a <= kMostTerm && w.b <= kMostTerm,
         "up and down must be 1 to " + std::to_string(kMostTerm));
  expect(w.d >= 0 && w.d <= static_cast<int>(Beyond::hold), "unknown ends of a resampling");
  expect(w.c >= 0 && w.c <= kMostTerm * kMostTerm, "a resampling has its centre too far");
  return {{part_of(taps, w.e, w.a, w.f, "taps"), w.a, w.b, w.c}, static_cast<Beyond>(w.d)};
}

Filter filter_of(const Words& w, const View& numbers, Kept& kept) {
  expect(w.a > 0 && w.a <= kMaxSections, "a filter has too many sections");
  expect(w.b >= 0 && w.b <= static_cast<int>(Pad::constant), "unknown padding");
  expect(w.c >= 0, "a negative padding");
  kept.push_back(sections_of(part_of(numbers, w.d, w.a, 6, "numbers"), false));
  return {&kept.back(), static_cast<Pad>(w.b), w.c};
}

Normalise normalise_of(const Words& w, const View& numbers, const View& levels,
                       std::int64_t leads) {
  expect(w.a >= 0 && w.a <= static_cast<int>(By::fixed), "unknown normalisation");
  const View three = part_of(numbers, w.d, 1, 3, "numbers");
  const double* const n = static_cast<const double*>(three.data);
  Normalise step{static_cast<By>(w.a), w.b != 0, w.c != 0, n[0], n[1], n[2], {}, {}};
  if (step.by == By::fixed) {
    expect(!step.record, "fixed numbers span no record");
    for (const std::int64_t count : {w.f, w.g}) {
      expect(count == 1 || count == leads, "mean and std must be one number, or one a lead");
    }
    step.mean = part_of(levels, w.e, w.f, 1, "levels");
    step.std = part_of(levels, w.e + w.f, w.g, 1, "levels");
  }
  return step;
}

// Reads the plan into the job: its steps, and how a buffer is laid out for them.
void read_plan(const View& x, const View& plan, const View& numbers, const View& taps,
               const View& levels, Preprocess& job, Kept& kept) {
  job.x = x;
  expect(x.dims == 3 && x.size[2] > 0, "x must be (N, L, T) with T > 0");
  expect(plan.dims == 2 && plan.size[1] == 8, "plan must be (S, 8)");
  expect(plan.size[0] <= kMostSteps, "plan has more than " + std::to_string(kMostSteps) + " steps");
  expect_dtype(plan, "plan", DType::i64);
  expect_dense(plan, "plan");
  expect_dtype(numbers, "numbers", DType::f64);
  expect_dense(numbers, "numbers");
  expect_dtype(levels, "levels", DType::f64);
  expect_dense(levels, "levels");
  expect_dense(taps, "taps");
  expect(plan.device < 0 && numbers.device < 0, "plan and numbers must be on the CPU");
  expect(taps.dtype == DType::f32 || taps.dtype == DType::f64, "taps has the wrong dtype");
  expect_place({plan, numbers}, {-1, 0, 0});

  job.wide = taps.dtype == DType::f64;
  kept.reserve(kMostSteps);
  int sections = 0;
  std::int64_t samples = x.size[2];
  std::int64_t most = samples;
  Room room;
  for (std::int64_t s = 0; s < plan.size[0]; ++s) {
    const Words& w = static_cast<const Words*>(plan.data)[s];
    Step step{};
    step.kind = static_cast<Kind>(w.kind);
    step.samples = samples;
    if (step.kind == Kind::resample) {
      step.resample = resample_of(w, taps);
      expect(samples > 1 || step.resample.beyond != Beyond::line, "one sample has no line");
      step.samples = output_length(samples, w.a, w.b);
    } else if (step.kind == Kind::filter) {
      step.filter = filter_of(w, numbers, kept);
      sections += kept.back().count;
      expect(sections <= kMostSections, "the filters have too many sections together");
      expect(step.filter.edge < samples, "a filter pads by more samples than there are");
      room.before = std::max(room.before, step.filter.edge);
      room.behind = std::max(room.behind, step.filter.edge);
    } else if (step.kind == Kind::normalise) {
      step.normalise = normalise_of(w, numbers, levels, x.size[1]);
    } else {
      expect(step.kind == Kind::crop, "unknown step");
      expect(w.a >= 0 && w.b > 0 && w.a <= samples && w.b <= samples - w.a, "a crop lies outside");
      step.start = w.a;
      step.samples = w.b;
    }
    expect(step.samples <= kMostSamples, "a row is longer than 2^31 samples");
    Step* const last = job.steps > 0 ? &job.step[job.steps - 1] : nullptr;
    const bool wholly = step.kind == Kind::crop && last != nullptr &&
                        (last->kind == Kind::resample || last->kind == Kind::crop);
    if (wholly) {  // what a crop drops at once is not made
      last->start += step.start;
      last->samples = step.samples;
    } else {
      job.step[job.steps++] = step;
    }
    samples = step.samples;
    most = std::max(most, samples);
  }

  samples = x.size[2];
  job.buffers = 1;
  for (int s = 0; s < job.steps; ++s) {
    const Step& step = job.step[s];
    job.by_record = job.by_record || spans_record(step);
    if (step.kind == Kind::resample) {
      job.buffers = 2;
      const Polyphase& p = step.resample.phases;
      room.before = std::max(room.before, -first_input(p, step.start));
      room.behind = std::max(room.behind, end_input(p, step.start + step.samples) - samples);
    }
    samples = step.samples;
  }
  job.front = room.before;
  job.moments = (room.before + most + room.behind + 3) / 4 * 4;  // whole vectors of 16 bytes

  job.origin = {1, 0, 1};
  for (int s = job.steps - 1; s >= 0; --s) {
    const Step& step = job.step[s];
    Origin& o = job.origin;
    if (step.kind != Kind::filter && step.kind != Kind::normalise) o.first += step.start * o.parts;
    if (step.kind != Kind::resample) continue;
    const Polyphase& p = step.resample.phases;
    o = {o.step * p.down, o.first * p.down, o.parts * p.up};
    const std::int64_t common = std::gcd(std::gcd(o.step, o.first), o.parts);
    o = {o.step / common, o.first / common, o.parts / common};
    expect(o.parts <= kMostParts && o.step <= kMostParts && o.first <= kMostParts << 20,
           "the ratios of rates have too large terms together");
  }
}

// Records that go together, so that their rows fill groups well.
std::int64_t records_at_once(const View& x) {
  const std::int64_t leads = x.size[1];
  const auto filled = [leads](std::int64_t records) {
    return (records * leads + kMostGroup - 1) / kMostGroup * kMostGroup;
  };
  std::int64_t best = 1;
  for (std::int64_t records = 2; records <= std::min<std::int64_t>(8, x.size[0] / 4); ++records) {
    if (filled(records) * best < filled(best) * records) best = records;
  }
  return best;
}

struct Cut {
  std::int64_t items, grain, rows;  // rows of a part
};

Cut cut(const Preprocess& job) {
  const View& x = job.x;
  if (!job.by_record) return {x.size[0] * x.size[1], kMostGroup, kMostGroup};
  const std::int64_t records = records_at_once(x);
  return {x.size[0], records, records * x.size[1]};
}

// Samples of a row that waits for its record, at most; 0 if none does.
std::int64_t most_held(const Preprocess& job) {
  std::int64_t most = 0;
  for (int s = 0; s < job.steps; ++s) {
    if (spans_record(job.step[s])) most = std::max(most, job.step[s].samples);
  }
  return most;
}

std::int64_t made(const Preprocess& job) {
  return job.steps > 0 ? job.step[job.steps - 1].samples : job.x.size[2];
}

// Whether y can hold the rows that wait for their record.
bool fits(const Preprocess& job, DType y) {
  return y == (job.wide ? DType::f64 : DType::f32) && made(job) >= most_held(job);
}

using Shape = std::pair<std::int64_t, std::int64_t>;

// Of the scratch, of the type that is computed in. CPU: a row for every worker. CUDA: one for
// every row that waits for its record.
Shape scratch_shape(const Preprocess& job, DType y, const Place& place) {
  const std::int64_t bytes = job.wide ? 8 : 4;
  if (kEmulated || place.device >= 0) {
    expect(shared_bytes(job) <= kMostShared,
           "rows of " + std::to_string(job.x.size[2]) + " samples take " +
               std::to_string(shared_bytes(job)) + " bytes of a block, which has " +
               std::to_string(kMostShared) +
               ": cut them, compute in float32, or run resample_poly and sosfiltfilt one by one");
    const std::int64_t rows = job.x.size[0] * job.x.size[1];
    return {fits(job, y) ? 0 : rows, most_held(job)};
  }
  const Cut c = cut(job);
  const std::int64_t lanes = (c.rows + kMostGroup - 1) / kMostGroup * kMostGroup;
  const std::int64_t samples = (lanes + kMostGroup) * job.moments;
  const std::int64_t parts = (c.items + c.grain - 1) / c.grain;
  return {std::min<std::int64_t>(std::max(place.threads, 1), parts),
          samples + lanes * kStateBytes / bytes};
}

Shape run_scratch(View x, View plan, View numbers, View taps, View levels, View y, Place place) {
  Preprocess job{};
  Kept kept;
  read_plan(x, plan, numbers, taps, levels, job, kept);
  return scratch_shape(job, y.dtype, place);
}

void run_preprocess(View x, View gain, View offset, View plan, View numbers, View taps, View levels,
                    View y, View gaps, View scratch, std::optional<std::int16_t> missing,
                    int on_gap, bool restore, Place place) {
  Preprocess job{};
  Kept kept;
  read_plan(x, plan, numbers, taps, levels, job, kept);
  expect(x.size[0] * x.size[1] <= INT32_MAX, "x has more than 2^31 rows");
  if (x.dtype != DType::i16) expect_float(x, "x");
  expect_dense_last(x, "x");
  for (const View& scale : {gain, offset}) {
    expect_shape(scale, "gain or offset", {x.size[0], x.size[1]});
    expect_dtype(scale, "gain or offset", DType::f64);
  }
  expect_shape(y, "y", {x.size[0], x.size[1], made(job)});
  if (y.dtype != DType::bf16 || !kStoresBfloat16) expect_float(y, "y");
  expect_dense(y, "y");
  expect_shape(gaps, "gaps", {x.size[0], x.size[1]});
  expect_dtype(gaps, "gaps", DType::i32);
  expect_dense(gaps, "gaps");
  expect(job.wide == (x.dtype == DType::f64 || y.dtype == DType::f64), "taps of the wrong dtype");
  expect_dtype(scratch, "scratch", taps.dtype);
  expect(on_gap >= 0 && on_gap <= static_cast<int>(OnGap::interpolate), "unknown on_gap");
  expect_place({x, gain, offset, y, gaps, scratch, taps, levels}, place);
  const auto [rows, columns] = scratch_shape(job, y.dtype, place);
  expect_shape(scratch, "scratch", {rows, columns});
  expect_dense(scratch, "scratch");

  job.gain = gain;
  job.offset = offset;
  job.y = y;
  job.gaps = gaps;
  job.scratch = scratch;
  job.held = fits(job, y.dtype) ? y : scratch;
  job.held_step = fits(job, y.dtype) ? made(job) : columns;
  job.has_missing = missing.has_value();
  job.missing = missing.value_or(0);
  job.on_gap = static_cast<OnGap>(on_gap);
  job.restore = restore;
  const Cut c = cut(job);
  run(job, c.items, c.grain, place, ECGFAST_LEVELS(preprocess));
}

}  // namespace

ECGFAST_BIND(preprocess, m) {
  m.def("preprocess_stores_bfloat16", [] { return kStoresBfloat16; });
  m.def("preprocess_scratch", &run_scratch);
  m.def("preprocess", &run_preprocess, pybind11::call_guard<pybind11::gil_scoped_release>());
}

}  // namespace ecgfast::preprocess
