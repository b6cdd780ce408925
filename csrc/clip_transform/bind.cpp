// clip_transform for Python: guards memory, names the function.
#include <pybind11/stl.h>

#include <cmath>
#include <vector>

#include "clip_transform/plan.h"
#include "core/border.h"
#include "core/python.h"

namespace ecgfast::clip_transform {
namespace {

// The plan lies on the device of the clips: on CUDA, which checks every pixel that it reads, it is
// taken as it comes.
void expect_plan(const View& plan, std::int64_t frames) {
  for (std::int64_t n = 0; n < plan.size[0]; ++n) {
    const std::int64_t* const row = static_cast<const std::int64_t*>(plan.data) + n * plan.size[1];
    for (const int column : {kTop, kLeft}) {
      expect(std::llabs(row[column]) <= kMostSide, "a plan must leave a window near its frame");
    }
    for (int i = kMap; i < kFrames; ++i) {
      const std::int64_t most = i == kMap || i == kMap + 3 ? 2 * kMostSide : 1;
      expect(std::llabs(row[i]) <= most << kPlaces, "a plan must turn a frame about itself");
    }
    for (std::int64_t f = kFrames; f < plan.size[1]; ++f) {
      expect(row[f] >= 0 && row[f] < frames, "a plan must show frames that there are");
    }
  }
}

bool is_last(const View& out) {  // channels, in memory
  View turned = out;
  constexpr int kOrder[] = {0, 2, 3, 4, 1};
  for (int d = 0; d < 5; ++d) {
    turned.size[d] = out.size[kOrder[d]];
    turned.stride[d] = out.stride[kOrder[d]];
  }
  try {
    expect_dense(turned, "out");
  } catch (const std::invalid_argument&) {
    return false;
  }
  return true;
}

void run_transform(View clips, View plan, View scratch, View out, int how,
                   const std::vector<double>& words, Place place) {
  expect(clips.dims == 5 && (clips.size[1] == 1 || clips.size[1] == 3) && clips.size[2] > 0,
         "clips must be (N, 1 or 3, F, H, W)");
  for (const int side : {3, 4}) {
    expect(clips.size[side] > 0 && clips.size[side] <= kMostSide,
           "a frame must have 1 to 32768 pixels a side");
  }
  expect_dtype(clips, "clips", DType::u8);
  expect_dense_last(clips, "clips");
  expect(out.dims == 5 && out.size[2] > 0, "out must be (N, C, G, H, W)");
  expect_shape(out, "out",
               {clips.size[0], clips.size[1], out.size[2], clips.size[3], clips.size[4]});
  expect(out.dtype == DType::f32 || out.dtype == DType::f16 || out.dtype == DType::bf16,
         "out must be of floats or halves");
  if (!is_last(out)) expect_dense(out, "out");
  expect_shape(plan, "plan", {clips.size[0], kFrames + out.size[2]});
  expect_dtype(plan, "plan", DType::i64);
  expect_dense(plan, "plan");
  expect(how >= 0 && how <= static_cast<int>(How::standard), "there is no such scale");
  expect(words.size() == 6, "words must be mean and std of three channels");
  for (const double word : words) expect(std::isfinite(word), "words must be finite");
  expect(scratch.dims == 2, "scratch must be (workers, bytes)");
  expect_dtype(scratch, "scratch", DType::u8);
  expect_dense(scratch, "scratch");
  if (place.device < 0) {
    expect(scratch.size[0] >= place.threads && scratch.size[1] % 64 == 0 &&
               scratch.size[1] >=
                   scratch_bytes(out.size[1] * out.size[2], clips.size[3], clips.size[4]),
           "scratch must have a row a thread that holds a clip");
    expect_plan(plan, clips.size[2]);
  }
  expect_place({clips, plan, scratch, out}, place);
  Transform job{clips, plan, scratch, out, out.dtype, static_cast<How>(how), {}, {}};
  if (job.kept != DType::f32) job.out.dtype = DType::i16;
  for (std::size_t c = 0; c < 3; ++c) {
    job.mean[c] = words[c];
    job.std[c] = words[3 + c];
  }
  run(job, out.size[0], 1, place, ECGFAST_LEVELS(transform));
}

}  // namespace

ECGFAST_BIND(clip_transform, m) {
  m.def("clip_transform", &run_transform, pybind11::call_guard<pybind11::gil_scoped_release>());
}

}  // namespace ecgfast::clip_transform
