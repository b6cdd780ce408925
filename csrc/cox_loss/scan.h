// The scan over rows in order of falling time, for CPU and CUDA; included after core/dispatch.h or
// cuda.cuh. A scan takes any range of whole groups, given the sums over what comes before it.
#pragma once

#include <cmath>

#include "cox_loss/contract.h"

namespace ecgfast::cox_loss {
namespace {  // so that no instruction set lends its code to another

constexpr double kNone = -1.7976931348623157e308;  // below every finite number; -inf - -inf is NaN

// A sum of exponentials: scaled * exp(largest). No log is taken of it, which would round to the
// digits of `largest`.
struct LogSum {
  double largest = kNone;
  double scaled = 0;

  ECGFAST_HD void add(double x) { add(x, 1); }
  ECGFAST_HD void add(double x, double times) {
    if (x <= largest) {
      scaled += times * exp(x - largest);
    } else {
      scaled = scaled * exp(largest - x) + times;
      largest = x;
    }
  }
  ECGFAST_HD void add(const LogSum& other) { add(other.largest, other.scaled); }
};

// What a range adds to the loss and to the count of events, and how many rows of it are wrong.
struct Tally {
  double loss = 0;
  double events = 0;
  double wrong = 0;

  ECGFAST_HD double mean() const { return wrong > 0 ? NAN : events > 0 ? loss / events : 0.0; }
};

// The rows of a job in their order. What it points with differs between the devices.
template <typename T, typename Rows, typename Indices, typename Doubles, typename Scratch>
struct Sorted {
  Rows x;
  Indices order;
  Doubles time, event;  // time is in order, event is not
  // Of a group, where its first row stands: what exp(x) is relative to, and relative to it a / S
  // and b / S; and where its last row stands, where it begins.
  Scratch scratch;
  std::int64_t count;
  bool efron;

  ECGFAST_HD double raw(std::int64_t i) const {
    return static_cast<double>(static_cast<acc_t<T>>(x[order[i]]));
  }
  ECGFAST_HD bool inside(std::int64_t i) const { return order[i] >= 0 && order[i] < count; }
  ECGFAST_HD double hazard(std::int64_t i) const {
    const double value = inside(i) ? raw(i) : 0.0;
    return value - value == 0.0 ? value : 0.0;  // wrong() has seen it
  }
  ECGFAST_HD bool has_event(std::int64_t i) const { return inside(i) && event[order[i]] == 1.0; }
  ECGFAST_HD bool wrong(std::int64_t i) const {
    if (!inside(i)) return true;
    const double value = raw(i);
    const double happened = event[order[i]];
    const bool timely = time[i] >= 0.0 && time[i] - time[i] == 0.0;
    return value - value != 0.0 || !timely || !(happened == 0.0 || happened == 1.0);
  }

  // The first row at or after `i` that opens a group.
  ECGFAST_HD std::int64_t opening(std::int64_t i) const {
    while (i > 0 && i < count && time[i] == time[i - 1]) ++i;
    return i < count ? i : count;
  }

  // Adds rows [begin, end) to the risk set.
  ECGFAST_HD void gather(std::int64_t begin, std::int64_t end, LogSum& risk) const {
    for (std::int64_t i = begin; i < end; ++i) risk.add(hazard(i));
  }

  // Groups in [begin, end), from the latest time on: their terms of the loss, and in scratch what
  // their gradient needs. `risk` holds the rows before, `steps` gets the sum of a / S.
  ECGFAST_HD Tally forward(std::int64_t begin, std::int64_t end, LogSum risk, LogSum& steps) const {
    Tally tally;
    for (std::int64_t first = begin; first < end;) {
      LogSum tied;
      double deaths = 0;
      double sum = 0;
      std::int64_t last = first;
      do {
        const double value = hazard(last);
        risk.add(value);
        if (has_event(last)) {
          tied.add(value);
          deaths += 1;
          sum += value;
        }
        tally.wrong += wrong(last);
        ++last;
      } while (last < end && time[last] == time[first]);
      double a = deaths;
      double b = 0;
      double spared = 0;  // what Efron's rule takes off the log of S
      if (efron && deaths > 1) {
        const double ratio = exp(tied.largest - risk.largest) * tied.scaled / risk.scaled;
        const double share = fmin(ratio, 1.0);
        a = 0;
        for (double k = 0; k < deaths; ++k) {
          const double q = k / deaths;
          const double part = 1 / (1 - q * share);
          a += part;
          b += q * part;
          spared += log1p(-q * share);
        }
      }
      if (deaths > 0) {
        tally.loss += (deaths * risk.largest - sum) + (deaths * log(risk.scaled) + spared);
        tally.events += deaths;
        steps.add(-risk.largest, a / risk.scaled);
      }
      scratch[first] = risk.largest;
      scratch[count + first] = a / risk.scaled;
      scratch[2 * count + first] = b / risk.scaled;
      scratch[3 * count + last - 1] = static_cast<double>(first);
      first = last;
    }
    return tally;
  }

  // The same groups from the earliest time on: the gradient. `steps` holds those of earlier times.
  template <typename Gradient>
  ECGFAST_HD void backward(std::int64_t begin, std::int64_t end, LogSum steps, double events,
                           Gradient grad) const {
    const double share = events > 0 ? 1 / events : 0.0;
    for (std::int64_t last = end; last > begin;) {
      const auto first = static_cast<std::int64_t>(scratch[3 * count + last - 1]);
      const double largest = scratch[first];
      const double a = scratch[count + first];
      const double b = scratch[2 * count + first];
      if (a > 0) steps.add(-largest, a);
      for (std::int64_t i = first; i < last; ++i) {
        const double value = hazard(i);
        double slope = steps.scaled > 0 ? exp(value + steps.largest) * steps.scaled : 0.0;
        if (has_event(i)) slope -= 1 + (b > 0 ? exp(value - largest) * b : 0.0);
        grad[order[i]] = static_cast<acc_t<T>>(share * slope);
      }
      last = first;
    }
  }
};

}  // namespace
}  // namespace ecgfast::cox_loss
