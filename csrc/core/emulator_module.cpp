// The Python module _emulated, for tests: the rooms' functions, which run their CUDA kernels in the
// emulator on memory of the CPU, whatever place they are given.
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "core/emulator.h"
#include "core/emulator_faults.h"
#include "core/python.h"

namespace py = pybind11;

namespace ecgfast {
namespace {

std::vector<Bind>& rooms() {
  static std::vector<Bind> known;
  return known;
}

std::vector<std::string> faults() {
  std::vector<std::string> names;
  for (int i = 0; i < emulator_faults::count(); ++i) names.push_back(emulator_faults::name(i));
  return names;
}

void run_fault(const std::string& name, bool planted, View x, View y, View counts) {
  emulator::emulate([&] { emulator_faults::run(name.c_str(), {x, y, counts, planted}); });
}

}  // namespace

Room::Room(Bind bind) { rooms().push_back(bind); }

}  // namespace ecgfast

PYBIND11_MODULE(_emulated, m) {
  using namespace ecgfast;
  m.def("use_schedules", &emulator::use_schedules, py::arg("count"), py::arg("seed") = 1);
  m.def("faults", &faults);
  m.def("run_fault", &run_fault);
  for (const Bind bind : rooms()) bind(m);
}
