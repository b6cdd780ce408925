// pairwise_distance for Python: guards memory, cuts the work, names the functions.
#include "core/border.h"
#include "core/python.h"
#include "core/triangle.h"
#include "pairwise_distance/contract.h"

namespace ecgfast::pairwise_distance {
namespace {

std::int64_t parts(std::int64_t count, std::int64_t size) { return (count + size - 1) / size; }

Metric metric_of(int code) {
  expect(code >= 0 && code <= static_cast<int>(Metric::mean_l1), "there is no such metric");
  return static_cast<Metric>(code);
}

void expect_rows(const View& x, const char* name) {
  expect(x.dims == 2 && x.size[1] > 0, std::string(name) + " must be (rows, columns > 0)");
  expect_dense_last(x, name);
}

// What Forward and Backward share; cosine alone has the norms.
void expect_sides(const View& x, const View& y, const View& norm_x, const View& norm_y,
                  Metric metric, bool same) {
  expect_rows(x, "x");
  expect_float(x, "x");
  expect_shape(y, "y", {y.size[0], x.size[1]});
  expect_dtype(y, "y", x.dtype);
  expect_rows(y, "y");
  if (same) {
    expect(x.data == y.data && x.size[0] == y.size[0] && x.stride[0] == y.stride[0],
           "y must be x itself");
  }
  const bool norms = metric == Metric::cosine;
  expect_shape(norm_x, "norm_x", {norms ? x.size[0] : 0});
  expect_shape(norm_y, "norm_y", {norms ? y.size[0] : 0});
  for (const View& norm : {norm_x, norm_y}) {
    expect_dtype(norm, "a norm", DType::f64);
    expect_dense(norm, "a norm");
  }
}

void run_unit_rows(View x, View unit, View norm, Place place) {
  expect_rows(x, "x");
  expect_float(x, "x");
  expect_shape(unit, "unit", {x.size[0], x.size[1]});
  expect_dtype(unit, "unit", sum_dtype(x.dtype));
  expect_dense(unit, "unit");
  expect_shape(norm, "norm", {x.size[0]});
  expect_dtype(norm, "norm", DType::f64);
  expect_dense(norm, "norm");
  expect_place({x, unit, norm}, place);
  expect(x.size[0] <= INT32_MAX, "x has more than 2^31 rows");
  run(UnitRows{x, unit, norm}, x.size[0], 1 + 32768 / x.size[1], place, ECGFAST_LEVELS(unit_rows));
}

void run_forward(View x, View y, View norm_x, View norm_y, View distance, View partial, int metric,
                 bool same, Place place) {
  expect_sides(x, y, norm_x, norm_y, metric_of(metric), same);
  expect_shape(distance, "distance", {x.size[0], y.size[0]});
  expect_dtype(distance, "distance", sum_dtype(x.dtype));
  expect_dense(distance, "distance");
  const bool split = partial.size[0] != 0;
  expect(!split || parts(x.size[1], kSegment) <= 65535, "x has too many columns to split");
  expect_shape(partial, "partial", {split ? parts(x.size[1], kSegment) : 0, x.size[0], y.size[0]});
  expect_dtype(partial, "partial", sum_dtype(x.dtype));
  expect_dense(partial, "partial");
  expect_place({x, y, norm_x, norm_y, distance, partial}, place);
  if (x.size[0] == 0 || y.size[0] == 0) return;

  // Large blocks read less, small ones spread few rows over many threads.
  int edge = kMaxEdge;
  while (edge > 8 && parts(x.size[0], edge) * parts(y.size[0], edge) < 64) edge /= 2;
  const std::int64_t height = parts(x.size[0], edge);
  const std::int64_t blocks = same ? triangle_size(height) : height * parts(y.size[0], edge);
  const std::int64_t grain = 1 + 65536 / (edge * edge * x.size[1]);
  run(Forward{x, y, norm_x, norm_y, distance, partial, metric_of(metric), same, edge}, blocks,
      grain, place, ECGFAST_LEVELS(forward));
}

void run_backward(View x, View y, View norm_x, View norm_y, View distance, View grad, View grad_x,
                  int metric, bool same, Place place) {
  expect_sides(x, y, norm_x, norm_y, metric_of(metric), same);
  for (const View& pairs : {distance, grad}) {
    expect_shape(pairs, "distance and its gradient", {x.size[0], y.size[0]});
    expect_dtype(pairs, "distance or its gradient", sum_dtype(x.dtype));
  }
  expect_shape(grad_x, "grad_x", {x.size[0], x.size[1]});
  expect_dtype(grad_x, "grad_x", sum_dtype(x.dtype));
  expect_dense(grad_x, "grad_x");
  expect_place({x, y, norm_x, norm_y, distance, grad, grad_x}, place);
  const std::int64_t blocks = parts(x.size[0], kGradRows) * parts(x.size[1], kGradColumns);
  run(Backward{x, y, norm_x, norm_y, distance, grad, grad_x, metric_of(metric), same}, blocks, 1,
      place, ECGFAST_LEVELS(backward));
}

void run_project(View unit, View norm, View grad, Place place) {
  expect_rows(unit, "unit");
  expect_float(unit, "unit");
  expect_dense(unit, "unit");
  expect_shape(norm, "norm", {unit.size[0]});
  expect_dtype(norm, "norm", DType::f64);
  expect_dense(norm, "norm");
  expect_shape(grad, "grad", {unit.size[0], unit.size[1]});
  expect_dtype(grad, "grad", unit.dtype);
  expect_dense(grad, "grad");
  expect_place({unit, norm, grad}, place);
  run(Project{unit, norm, grad}, unit.size[0], 1 + 32768 / unit.size[1], place,
      ECGFAST_LEVELS(project));
}

}  // namespace

ECGFAST_BIND(pairwise_distance, m) {
  const auto free = pybind11::call_guard<pybind11::gil_scoped_release>();
  m.def("pairwise_distance_unit_rows", &run_unit_rows, free);
  m.def("pairwise_distance_forward", &run_forward, free);
  m.def("pairwise_distance_backward", &run_backward, free);
  m.def("pairwise_distance_project", &run_project, free);
}

}  // namespace ecgfast::pairwise_distance
