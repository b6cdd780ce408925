// cox_loss for Python: guards memory, names the function.
#include "core/border.h"
#include "core/python.h"
#include "cox_loss/contract.h"

namespace ecgfast::cox_loss {
namespace {

void expect_vector(const View& view, const char* name, std::int64_t count, DType dtype) {
  expect_shape(view, name, {count});
  expect_dtype(view, name, dtype);
  expect_dense(view, name);
}

void run_forward(View x, View order, View time, View event, View scratch, View loss, View grad_x,
                 bool efron, Place place) {
  expect(x.dims == 1, "x must be (N,)");
  const std::int64_t count = x.size[0];
  expect_float(x, "x");
  expect_dense(x, "x");
  expect_vector(order, "order", count, DType::i64);
  expect_vector(time, "time", count, DType::f64);
  expect_vector(event, "event", count, DType::f64);
  expect_shape(scratch, "scratch", {4, count});
  expect_dtype(scratch, "scratch", DType::f64);
  expect_dense(scratch, "scratch");
  expect_shape(loss, "loss", {});
  expect_dtype(loss, "loss", sum_dtype(x.dtype));
  expect_vector(grad_x, "grad_x", count, sum_dtype(x.dtype));
  expect_place({x, order, time, event, scratch, loss, grad_x}, place);
  run(Forward{x, order, time, event, scratch, loss, grad_x, efron}, 1, 1, place,
      ECGFAST_LEVELS(forward));
}

}  // namespace

ECGFAST_BIND(cox_loss, m) {
  m.def("cox_loss_forward", &run_forward, pybind11::call_guard<pybind11::gil_scoped_release>());
}

}  // namespace ecgfast::cox_loss
