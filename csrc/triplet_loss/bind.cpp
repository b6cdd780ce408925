// triplet_loss for Python: guards memory, cuts the work, names the functions.
#include <pybind11/stl.h>

#include <optional>

#include "core/border.h"
#include "core/python.h"
#include "triplet_loss/contract.h"

namespace ecgfast::triplet_loss {
namespace {

// About 256 kB of reading for a thread at a time: most of it is in the cache.
std::int64_t grain(std::int64_t floats) { return 1 + 65536 / (floats + 1); }

// What both directions read; returns K.
std::int64_t expect_triplets(const View& x, const View& anchors, const View& positives,
                             const View& negatives) {
  expect(x.dims == 2, "x must be (N, D)");
  expect_float(x, "x");
  expect_dense_last(x, "x");
  expect(anchors.dims == 1, "anchors must be (K,)");
  const std::int64_t count = anchors.size[0];
  for (const View& rows : {anchors, positives, negatives}) {
    expect_shape(rows, "an index", {count});
    expect_dtype(rows, "an index", DType::i64);
  }
  expect(x.size[0] <= INT32_MAX - 3, "x has more than 2^31 rows");
  expect(x.size[1] <= 65535 * 128, "x has more than 65535 * 128 columns");
  expect(count <= INT32_MAX / 3, "more than 2^31 / 3 triplets");
  return count;
}

void expect_scalar(const View& view, const char* name, DType dtype) {
  expect_shape(view, name, {});
  expect_dtype(view, name, dtype);
}

// Returns how many valid triplets name a row that x has not; 0 on a device, where knowing it
// would mean waiting for it.
std::int64_t run_forward(View x, View anchors, View positives, View negatives,
                         std::optional<View> mask, View hinge, View owners, View loss, View share,
                         View outside, double margin, bool mean, Place place) {
  const std::int64_t count = expect_triplets(x, anchors, positives, negatives);
  View valid{};
  if (mask) {
    valid = *mask;
    expect_shape(valid, "valid", {count});
    expect_dtype(valid, "valid", DType::u8);
    expect_place({valid}, place);
  }
  expect_shape(hinge, "hinge", {count});
  expect_dtype(hinge, "hinge", sum_dtype(x.dtype));
  expect_dense(hinge, "hinge");
  expect_shape(owners, "owners", {3, count});
  expect_dtype(owners, "owners", DType::i32);
  expect_dense(owners, "owners");
  expect_scalar(loss, "loss", sum_dtype(x.dtype));
  expect_scalar(share, "share", sum_dtype(x.dtype));
  expect_scalar(outside, "outside", DType::i64);
  expect_place({x, anchors, positives, negatives, hinge, owners, loss, share, outside}, place);
  run(Forward{x, anchors, positives, negatives, valid, hinge, owners, margin}, count,
      grain(3 * x.size[1]), place, ECGFAST_LEVELS(forward));
  run(Finish{hinge, owners, loss, share, outside, x.size[0], mean}, 1, 1, place,
      ECGFAST_LEVELS(finish));
  return place.device < 0 ? *static_cast<const std::int64_t*>(outside.data) : 0;
}

void run_backward(View x, View anchors, View positives, View negatives, View owners, View slots,
                  View grad, View share, View grad_x, Place place) {
  const std::int64_t count = expect_triplets(x, anchors, positives, negatives);
  expect_shape(owners, "owners", {3 * count});
  expect_dtype(owners, "owners", DType::i32);
  expect_dense(owners, "owners");
  expect_shape(slots, "slots", {3 * count});
  expect_dtype(slots, "slots", DType::i64);
  expect_dense(slots, "slots");
  expect_shape(grad, "grad", {count});
  expect_dtype(grad, "grad", sum_dtype(x.dtype));
  expect_scalar(share, "share", sum_dtype(x.dtype));
  expect_shape(grad_x, "grad_x", {x.size[0], x.size[1]});
  expect_dtype(grad_x, "grad_x", x.dtype);
  expect_dense(grad_x, "grad_x");
  expect_place({x, anchors, positives, negatives, owners, slots, grad, share, grad_x}, place);
  const std::int64_t rows = x.size[0];
  const std::int64_t floats = x.size[1] * (1 + (rows > 0 ? 4 * count / rows : 0));
  run(Backward{x, anchors, positives, negatives, owners, slots, grad, share, grad_x},
      x.size[1] > 0 ? rows : 0, grain(floats), place, ECGFAST_LEVELS(backward));
}

}  // namespace

ECGFAST_BIND(triplet_loss, m) {
  m.def("triplet_loss_forward", &run_forward, pybind11::call_guard<pybind11::gil_scoped_release>());
  m.def("triplet_loss_backward", &run_backward,
        pybind11::call_guard<pybind11::gil_scoped_release>());
}

}  // namespace ecgfast::triplet_loss
