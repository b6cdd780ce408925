// augment for Python: guards memory, cuts the work, names the functions.
#include <pybind11/stl.h>

#include <array>
#include <cmath>
#include <cstring>
#include <vector>

#include "augment/plan.h"
#include "core/border.h"
#include "core/python.h"

namespace ecgfast::augment {
namespace {

constexpr std::size_t kWords = sizeof(Spec) / sizeof(double);
constexpr double kMost = 1024;  // knots, sines, bursts, segments

// The numbers that memory depends on must be as the face promises.
Spec spec_of(const std::vector<double>& words, std::int64_t samples, std::int64_t length) {
  expect(words.size() == kWords, "spec must have " + std::to_string(kWords) + " words");
  for (const double word : words) expect(std::isfinite(word), "spec must be finite");
  Spec spec;
  std::memcpy(&spec, words.data(), sizeof spec);
  const double longest = static_cast<double>(length);
  expect(spec.warp >= 0 && spec.warp < 1, "warp must be in [0, 1)");
  expect(spec.knots >= 0 && spec.knots <= kMost, "too many knots");
  expect(spec.warp == 0 || spec.knots + 2 <= static_cast<double>(samples), "too many knots for x");
  expect(spec.shift >= 0 && spec.shift <= static_cast<double>(samples), "shift must be in [0, T]");
  expect(spec.sines >= 1 && spec.sines <= kMost, "sines must be in [1, 1024]");
  for (const double* ends : {spec.bursts, spec.masks}) {
    expect(0 <= ends[0] && ends[0] <= ends[1] && ends[1] <= kMost, "counts must be in [0, 1024]");
  }
  expect(1 <= spec.burst[0] && spec.burst[0] <= spec.burst[1] && spec.burst[1] <= 0x1p30,
         "a burst must have at least one sample");
  expect(1 <= spec.mask[0] && spec.mask[0] <= spec.mask[1] &&
             (spec.masks[1] == 0 || spec.mask[1] <= longest),
         "a masked segment must have 1 to S samples");
  expect(spec.sizes >= 1 && spec.sizes <= kMaxSizes, "sizes must be in [1, 16]");
  return spec;
}

// About a record for a thread at a time: what a record shares is made once.
constexpr std::int64_t kGrain = 1;

void run_augment(View x, View seed, View record_ids, View plan, View scratch, View y,
                 const std::vector<double>& words, Place place) {
  expect(x.dims == 3 && x.size[2] > 0, "x must be (N, L, T) with T > 0");
  expect(x.size[0] <= INT32_MAX && x.size[2] <= INT32_MAX - 1024, "x has more than 2^31 samples");
  expect(x.size[1] < (1 << 24), "x has more than 2^24 leads");
  expect_float(x, "x");
  expect_dense_last(x, "x");
  expect(y.dims == 3 && y.size[2] > 0 && y.size[2] <= x.size[2], "y must be (N, L, S), 0 < S <= T");
  expect_shape(y, "y", {x.size[0], x.size[1], y.size[2]});
  expect_dtype(y, "y", x.dtype);
  expect_dense(y, "y");
  expect_shape(seed, "seed", {1});
  expect_dtype(seed, "seed", DType::i64);
  expect_shape(record_ids, "record_ids", {x.size[0]});
  expect_dtype(record_ids, "record_ids", DType::i64);
  const Spec spec = spec_of(words, x.size[2], y.size[2]);
  expect_shape(plan, "plan", {x.size[0], columns_of(spec, x.size[1]).count});
  expect_dtype(plan, "plan", DType::f64);
  expect_dense(plan, "plan");
  expect(scratch.dims == 2, "scratch must be (workers, bytes)");
  expect_dtype(scratch, "scratch", DType::u8);
  expect_dense(scratch, "scratch");
  if (place.device < 0) {
    const std::int64_t padded = (y.size[2] + 63) / 64 * 64;
    expect(scratch.size[0] >= place.threads && scratch.size[1] >= 16 * padded &&
               scratch.size[1] % 256 == 0,
           "scratch must have a row a thread, 16 bytes a sample of whole tiles");
  }
  expect_place({x, seed, record_ids, plan, scratch, y}, place);
  const std::int64_t records = x.size[1] == 0 ? 0 : x.size[0];
  run(Draw{seed, record_ids, plan, spec, x.size[1], x.size[2], y.size[2]}, records, 64, place,
      ECGFAST_LEVELS(draw));
  run(Apply{x, y, seed, record_ids, plan, scratch, spec}, records, kGrain, place,
      ECGFAST_LEVELS(apply));
}

// The generator alone, for tests against its published answers.
std::array<std::uint32_t, 4> run_philox(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key) {
  const PhiloxWords words =
      philox({{counter[0], counter[1], counter[2], counter[3]}}, {{key[0], key[1]}});
  return {words.word[0], words.word[1], words.word[2], words.word[3]};
}

}  // namespace

ECGFAST_BIND(augment, m) {
  m.def("augment", &run_augment, pybind11::call_guard<pybind11::gil_scoped_release>());
  m.def("augment_philox", &run_philox);
}

}  // namespace ecgfast::augment
