// Kernels with planted faults, for the test of the emulator.
#pragma once

#include "core/view.h"

namespace ecgfast::emulator_faults {

struct Job {
  View x, y, counts;  // (64,) each: floats, floats, 32-bit integers
  bool planted;
};

int count();
const char* name(int index);
void run(const char* name, const Job& job);

}  // namespace ecgfast::emulator_faults
