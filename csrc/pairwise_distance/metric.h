// What a metric does to one pair, on the CPU and on a device alike. Included by kernels: every
// function is static.
#pragma once

#include <cmath>
#include <type_traits>

#include "core/dispatch.h"
#include "pairwise_distance/contract.h"

namespace ecgfast::pairwise_distance {

ECGFAST_HD static inline bool sums_squares(Metric metric) {
  return metric != Metric::l1 && metric != Metric::mean_l1;
}

// From the sum over the columns to the distance. Cosine alone reads the norms.
template <typename A>
ECGFAST_HD static inline A finish(Metric metric, A sum, std::int64_t columns, double norm_x,
                                  double norm_y, bool diagonal) {
  switch (metric) {
    case Metric::euclidean:
      return sqrt(sum);
    case Metric::mean_l1:
      return sum / static_cast<A>(columns);
    case Metric::cosine: {
      const bool zero_row = (norm_x == 0 || norm_y == 0) && !diagonal;
      return zero_row && sum == sum ? A(1) : sum / 2;
    }
    default:
      return sum;
  }
}

// What the step from one row to the other is multiplied with in the gradient, from g = dLoss/dd.
template <typename A>
ECGFAST_HD static inline A coefficient(Metric metric, A g, A distance, std::int64_t columns,
                                       double norm_x, double norm_y) {
  switch (metric) {
    case Metric::sqeuclidean:
      return 2 * g;
    case Metric::euclidean:
      return distance == 0 ? A(0) : g / distance;
    case Metric::cosine:
      return norm_x == 0 || norm_y == 0 ? A(0) : g;
    case Metric::mean_l1:
      return g / static_cast<A>(columns);
    default:
      return g;
  }
}

// Calls body with the metric as a constant, so that the loops inside are of one metric.
template <typename Body>
static inline void with_metric(Metric metric, const Body& body) {
  switch (metric) {
    case Metric::sqeuclidean:
      return body(std::integral_constant<Metric, Metric::sqeuclidean>{});
    case Metric::euclidean:
      return body(std::integral_constant<Metric, Metric::euclidean>{});
    case Metric::cosine:
      return body(std::integral_constant<Metric, Metric::cosine>{});
    case Metric::l1:
      return body(std::integral_constant<Metric, Metric::l1>{});
    case Metric::mean_l1:
      return body(std::integral_constant<Metric, Metric::mean_l1>{});
  }
}

// On the CPU: element n of the norms, which cosine alone has.
static inline double norm_of(const View& norm, std::int64_t n) {
  return norm.size[0] == 0 ? 1 : static_cast<const double*>(norm.data)[n];
}

}  // namespace ecgfast::pairwise_distance
