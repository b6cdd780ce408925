// image_augment for Python: guards memory, cuts the work, names the functions.
#include <pybind11/stl.h>

#include <cmath>
#include <vector>

#include "core/border.h"
#include "core/python.h"
#include "image_augment/plan.h"

namespace ecgfast::image_augment {
namespace {

bool is_one_of(double number, int low, int high) {
  return number >= low && number <= high && number == std::floor(number);
}

// The plan lies on the device of the pages: on CUDA, which checks every pixel that it reads, it is
// taken as it comes; here its numbers must be such that scratch holds what they ask for.
void expect_plan(const View& plan, const View& pages, std::int64_t height, std::int64_t width) {
  const bool same = pages.size[2] == height && pages.size[3] == width;
  for (std::int64_t n = 0; n < plan.size[0]; ++n) {
    const double* const row = static_cast<const double*>(plan.data) + n * kPlan;
    for (int i = 0; i < kPlan; ++i) expect(std::isfinite(row[i]), "a plan must be finite");
    expect(is_one_of(row[kSamples], 0, kMostSamples), "samples of a plan must be 0 to 4");
    expect(row[kSamples] > 0 || same, "a plan without a map needs an output as large as its page");
    expect(is_one_of(row[kRadius], 0, kMostRadius), "the radius of a plan must be 0 to 6");
    for (const int column : {kKey, kKey + 1, kId, kId + 1}) {
      expect(row[column] >= 0 && row[column] <= UINT32_MAX, "halves of a seed are 32 bits");
    }
    for (int i = 0; row[kQuality] != 0 && i < 128; ++i) {
      expect(row[kTables + i] >= 1, "steps of a plan must be at least 1");
    }
    for (int corner = 0; row[kSamples] > 0 && corner < 4; ++corner) {
      const double x = corner % 2 == 0 ? 0.0 : static_cast<double>(width);
      const double y = corner / 2 == 0 ? 0.0 : static_cast<double>(height);
      const double* const m = row + kMap;
      const double w = m[6] * x + m[7] * y + m[8];
      expect(w > 0, "a plan maps the output to beyond the horizon");
      expect(std::fabs(m[0] * x + m[1] * y + m[2]) < kFarthest * w &&
                 std::fabs(m[3] * x + m[4] * y + m[5]) < kFarthest * w,
             "a plan maps the output far from its page");
    }
  }
}

void run_apply(View pages, View plan, View scratch, View out, const std::vector<double>& words,
               Place place) {
  expect(pages.dims == 4 && (pages.size[1] == 1 || pages.size[1] == 3),
         "pages must be (N, 1 or 3, H, W)");
  expect(out.dims == 4, "out must be (N, C, H', W')");
  for (const View& view : {pages, out}) {
    expect(view.size[2] > 0 && view.size[3] > 0 && view.size[2] <= 32768 && view.size[3] <= 32768,
           "a page must have 1 to 32768 pixels a side");
  }
  expect_shape(out, "out", {pages.size[0], pages.size[1], out.size[2], out.size[3]});
  expect(pages.size[0] <= 65535, "more than 65535 pages at a time");
  for (const View& view : {pages, out}) {
    expect(view.dtype == DType::u8 || view.dtype == DType::f32 ||
               (place.device >= 0 && (view.dtype == DType::f16 || view.dtype == DType::bf16)),
           "pages and out must be of bytes or floats");
  }
  expect_dense(out, "out");
  expect_shape(plan, "plan", {pages.size[0], kPlan});
  expect_dtype(plan, "plan", DType::f64);
  expect_dense(plan, "plan");
  expect(words.size() == 9, "words must be fill, scale and shift of three colours");
  for (const double word : words) expect(std::isfinite(word), "words must be finite");
  expect(scratch.dims == 2, "scratch must be (workers, bytes)");
  expect_dtype(scratch, "scratch", DType::u8);
  expect_dense(scratch, "scratch");
  if (place.device < 0) {
    expect(scratch.size[0] >= place.threads && scratch.size[1] >= 4 * scratch_floats(out.size[1]) &&
               scratch.size[1] % 64 == 0,
           "scratch must have a row a thread that holds what a tile takes");
    expect_plan(plan, pages, out.size[2], out.size[3]);
  }
  expect_place({pages, plan, scratch, out}, place);
  Apply job{pages, plan, scratch, out, {}, {}, {}};
  for (std::size_t c = 0; c < 3; ++c) {
    job.fill[c] = words[c];
    job.scale[c] = words[3 + c];
    job.shift[c] = words[6 + c];
  }
  const std::int64_t tiles =
      (out.size[2] + kSide - 1) / kSide * ((out.size[3] + kSide - 1) / kSide);
  run(job, out.size[0] * tiles, 1, place, ECGFAST_LEVELS(apply));
}

}  // namespace

ECGFAST_BIND(image_augment, m) {
  m.def("image_augment", &run_apply, pybind11::call_guard<pybind11::gil_scoped_release>());
}

}  // namespace ecgfast::image_augment
