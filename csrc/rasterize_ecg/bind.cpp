// rasterize_ecg for Python: guards memory, cuts the work, names the functions.
#include <cmath>

#include "core/border.h"
#include "core/python.h"
#include "rasterize_ecg/plan.h"

namespace ecgfast::rasterize_ecg {
namespace {

void expect_plan(const View& view, const char* name, std::int64_t pages, int dims, int columns) {
  const std::string is = name;
  expect(view.dims == dims && view.size[0] == pages && view.size[dims - 1] == columns,
         is + " has the wrong shape");
  expect_dtype(view, name, DType::f64);
  expect_dense(view, name);
}

// The plan's numbers lie on the device of the page: what they may reach is checked where they are
// used on CUDA, and here on the CPU.
void expect_reach(const View& x, const View& strips, const View& strokes, const View& groups) {
  for (const View& plan : {strips, strokes, groups}) {
    const double* const numbers = static_cast<const double*>(plan.data);
    const std::int64_t count = plan.size[0] * plan.size[1] * plan.size[2];
    for (std::int64_t i = 0; i < count; ++i)
      expect(std::isfinite(numbers[i]), "a plan must be finite");
  }
  const double leads = static_cast<double>(x.size[1]);
  const double samples = static_cast<double>(x.size[2]);
  const double* strip = static_cast<const double*>(strips.data);
  for (std::int64_t i = 0; i < strips.size[0] * strips.size[1]; ++i, strip += kStrip) {
    const bool within = strip[kLead] < leads && strip[kFirst] >= 0 && strip[kCount] >= 0 &&
                        strip[kFirst] + strip[kCount] <= samples;
    expect(within, "a strip reaches beyond its record");
    expect(strip[kCount] < 2 || strip[kDx] > 0, "a strip must go to the right");
    expect(strip[kTop] >= 0 && strip[kTop] <= INT32_MAX && strip[kBottom] >= 0 &&
               strip[kBottom] <= INT32_MAX,
           "a strip shows outside any page");
  }
  const double* group = static_cast<const double*>(groups.data);
  for (std::int64_t i = 0; i < groups.size[0] * groups.size[1]; ++i, group += kGroup) {
    expect(
        group[4] >= 0 && group[4] <= group[5] && group[5] <= static_cast<double>(strokes.size[1]),
        "a group reaches beyond the strokes");
  }
}

void run_draw(View x, View looks, View strips, View strokes, View groups, View scratch, View out,
              Place place) {
  expect(x.dims == 3, "x must be (N, L, T)");
  expect_float(x, "x");
  expect_dense_last(x, "x");
  expect(out.dims == 4 && (out.size[1] == 1 || out.size[1] == 3), "out must be (N, 1 or 3, H, W)");
  expect(out.size[0] == x.size[0], "out must have a page a record");
  expect(out.size[2] > 0 && out.size[3] > 0 && out.size[2] <= 32768 && out.size[3] <= 32768,
         "a page must have 1 to 32768 pixels a side");
  expect(x.size[0] <= 65535, "more than 65535 pages at a time");
  expect(out.dtype == DType::u8 || out.dtype == DType::f32 ||
             (place.device >= 0 && (out.dtype == DType::f16 || out.dtype == DType::bf16)),
         "out must be of bytes or floats");
  expect_dense(out, "out");
  expect_plan(looks, "looks", x.size[0], 2, kLook);
  expect_plan(strips, "strips", x.size[0], 3, kStrip);
  expect_plan(strokes, "strokes", x.size[0], 3, kStroke);
  expect_plan(groups, "groups", x.size[0], 3, kGroup);
  expect(scratch.dims == 2, "scratch must be (workers, bytes)");
  expect_dtype(scratch, "scratch", DType::u8);
  expect_dense(scratch, "scratch");
  if (place.device < 0) {
    expect_reach(x, strips, strokes, groups);
    const std::int64_t width = out.size[3];
    const std::int64_t element = out.dtype == DType::u8 ? 1 : 4;
    const std::int64_t numbers = 2 * width + out.size[2] + kSpare + 5 * x.size[2];
    expect(scratch.size[0] >= place.threads &&
               scratch.size[1] >= 4 * numbers + width * (out.size[1] * element + out.size[2]) &&
               scratch.size[1] % 64 == 0,
           "scratch must have a row a thread that holds a mask, a plain row, and numbers");
  }
  expect_place({x, looks, strips, strokes, groups, scratch, out}, place);
  run(Draw{x, looks, strips, strokes, groups, scratch, out}, x.size[0], 1, place,
      ECGFAST_LEVELS(draw));
}

}  // namespace

ECGFAST_BIND(rasterize_ecg, m) {
  m.def("rasterize_ecg", &run_draw, pybind11::call_guard<pybind11::gil_scoped_release>());
}

}  // namespace ecgfast::rasterize_ecg
