// The CPU kernel of cox_loss; see contract.h.
#include "core/dispatch.h"
#include "cox_loss/contract.h"
#include "cox_loss/scan.h"

namespace ecgfast::cox_loss::ECGFAST_ISA {

void forward(const Forward& job, Range) {
  dispatch_float(job.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const std::int64_t count = job.x.size[0];
    const Sorted<T, const T*, const std::int64_t*, const double*, double*> rows{
        static_cast<const T*>(job.x.data),
        static_cast<const std::int64_t*>(job.order.data),
        static_cast<const double*>(job.time.data),
        static_cast<const double*>(job.event.data),
        static_cast<double*>(job.scratch.data),
        count,
        job.efron};
    T* const grad = static_cast<T*>(job.grad_x.data);
    LogSum steps;
    const Tally tally = rows.forward(0, count, LogSum{}, steps);
    if (tally.wrong == 0) rows.backward(0, count, LogSum{}, tally.events, grad);
    for (std::int64_t i = 0; tally.wrong > 0 && i < count; ++i) grad[i] = static_cast<T>(NAN);
    *static_cast<T*>(job.loss.data) = static_cast<T>(tally.mean());
  });
}

}  // namespace ecgfast::cox_loss::ECGFAST_ISA
