// Plans and launches the time loops of the LSTM, the GRU and the RNN, for Python.
#include "../bindings.h"

#include <pybind11/stl.h>

#include <cstdio>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "../../without_gil.h"
#include "../device/current_device.h"
#include "make_plan.h"
#include "run.h"

namespace py = pybind11;

namespace fastlstm::cuda {
namespace {

constexpr int kHopper = 90;

int attribute(cudaDeviceAttr what, int device) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, what, device), "cannot ask for the device's properties");
  return value;
}

Device device_with_number(int device) {
  if (const auto reason = why_no_code_on(device))
    throw std::runtime_error("device " + std::to_string(device) + ": " + *reason);
  const int capability =
      10 * attribute(cudaDevAttrComputeCapabilityMajor, device) + attribute(cudaDevAttrComputeCapabilityMinor, device);
  const int shared_bytes = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  int largest_cluster = 0;
  if (capability >= kHopper) {
    const CurrentDevice current(device);
    largest_cluster = largest_cluster_of<Precision::kBf16>(device, shared_bytes);
  }
  return {attribute(cudaDevAttrMultiProcessorCount, device), shared_bytes, largest_cluster};
}

template <class Value>
Value choose(const char* what, const std::string& name, const std::map<std::string, Value>& choices) {
  const auto found = choices.find(name);
  if (found != choices.end()) return found->second;
  std::string names;
  for (const auto& [choice, value] : choices) names += (names.empty() ? "'" : ", '") + choice + "'";
  throw std::invalid_argument(std::string(what) + " is '" + name + "', expected one of " + names);
}

const std::map<std::string, Kernel> kKernels{{"plain", Kernel::kPlain},
                                             {"step", Kernel::kStep},
                                             {"persistent", Kernel::kPersistent},
                                             {"rows", Kernel::kRows},
                                             {"cluster", Kernel::kCluster}};

std::string name_of(Kernel kernel) {
  for (const auto& [name, value] : kKernels) {
    if (value == kernel) return name;
  }
  return "";
}

Problem problem_of(const std::string& cell, const std::string& direction, const std::string& precision, Index N,
                   Index T, Index H) {
  return {
      choose<Cell>("cell", cell,
                   {{"lstm", Cell::kLstm},
                    {"rnn", Cell::kRnn},
                    {"gru_reset_after", Cell::kGruResetAfter},
                    {"gru_reset_before", Cell::kGruResetBefore}}),
      choose<Direction>("direction", direction, {{"forward", Direction::kForward}, {"backward", Direction::kBackward}}),
      choose<Precision>("precision", precision,
                        {{"float32", Precision::kFloat32},
                         {"float64", Precision::kFloat64},
                         {"tf32", Precision::kTf32},
                         {"bf16", Precision::kBf16}}),
      N,
      T,
      H};
}

Plan plan_of(const Problem& problem, const Device& device, const std::optional<std::string>& kernel) {
  if (!kernel) return make_plan(problem, device);
  // Clusters of 8 blocks and 16 rows are "cluster:8x16", tiles of 64 columns and 8 rows "step:64x8".
  const auto colon = std::min(kernel->find(':'), kernel->size());
  const std::string name = kernel->substr(0, colon), asked = kernel->substr(colon);
  Shape shape;
  int end = 0;
  const bool has_shapes = name == "step" || name == "persistent" || name == "cluster";
  if (has_shapes && std::sscanf(asked.c_str(), ":%dx%d%n", &shape.width, &shape.rows, &end) == 2 &&
      static_cast<std::size_t>(end) == asked.size()) {
    return make_plan(problem, device, kKernels.at(name), shape);
  }
  return make_plan(problem, device, choose<Kernel>("kernel", *kernel, kKernels));
}

py::dict as_dict(const Problem& problem, const Plan& plan, const Device& device) {
  using namespace py::literals;
  const bool tiles = plan.kernel != Kernel::kRows && plan.kernel != Kernel::kPlain;
  Index chunks = 0, resident = 0;  // of all parts
  for (const PlannedPart& part : plan.parts) {
    chunks += part.chunks;
    resident += part.resident;
  }
  return py::dict("kernel"_a = name_of(plan.kernel), "columns"_a = tiles ? 16 * plan.tile.M : 4 * plan.tile.M,
                  "rows"_a = tiles ? 8 * plan.tile.J : plan.tile.J, "threads"_a = plan.threads, "units"_a = plan.units,
                  "unit_blocks"_a = plan.unit_blocks, "row_blocks"_a = plan.row_blocks,
                  "pass_blocks"_a = plan.pass_blocks, "chunks"_a = chunks, "resident"_a = resident,
                  "shared_bytes"_a = plan.shared_bytes, "workspace_bytes"_a = plan.workspace_bytes,
                  "step_cycles"_a = tiles ? step_cycles(problem, plan, device) : 0.0);
}

py::dict plan_for(const std::string& cell, const std::string& direction, const std::string& precision, Index N, Index T,
                  Index H, int multiprocessors, Index shared_bytes, int largest_cluster,
                  const std::optional<std::string>& kernel) {
  const Problem problem = problem_of(cell, direction, precision, N, T, H);
  const Device device{multiprocessors, shared_bytes, largest_cluster};
  return as_dict(problem, plan_of(problem, device, kernel), device);
}

// Addresses by name, as a Sequence has them; a name that nobody took is an error.
class Arrays {
 public:
  explicit Arrays(const std::map<std::string, Address>& addresses) : addresses_(addresses) {}

  template <class T>
  void take(const char* name, T*& array) {
    const auto found = addresses_.find(name);
    if (found == addresses_.end()) return;
    array = pointer<T>(found->second);
    taken_.insert(name);
  }
  void expect_all_taken() const {
    for (const auto& [name, address] : addresses_) {
      if (!taken_.contains(name)) throw std::invalid_argument("a sequence has no array '" + name + "'");
    }
  }

 private:
  const std::map<std::string, Address>& addresses_;
  std::set<std::string> taken_;
};

// One pass over a sequence, planned for a device.
class SequencePass {
 public:
  SequencePass(const std::string& cell, const std::string& direction, const std::string& precision, Index N, Index T,
               Index H, bool reverse, const std::string& gate_order, bool hard_sigmoid, int device,
               const std::optional<std::string>& kernel, bool z_keeps)
      : problem_(problem_of(cell, direction, precision, N, T, H)),
        reverse_(reverse),
        z_keeps_(z_keeps),
        activation_(hard_sigmoid ? RecurrentActivation::kHardSigmoid : RecurrentActivation::kSigmoid),
        number_(device),
        device_(device_with_number(device)),
        plan_(plan_of(problem_, device_, kernel)) {
    const std::string gates = is_gru(problem_.cell) ? "zrn" : problem_.cell == Cell::kLstm ? "ifgo" : "";
    for (std::size_t q = 0; q < gates.size(); ++q) gate_position_[q] = static_cast<int>(gate_order.find(gates[q]));
  }

  Index workspace_bytes() const { return plan_.workspace_bytes; }
  py::dict plan() const { return as_dict(problem_, plan_, device_); }

  void run(const std::map<std::string, Address>& arrays, Address workspace, Address stream) const {
    char* const memory = pointer<char>(workspace);
    auto* const on = stream_at(stream);
    const WithoutGil released;
    const CurrentDevice current(number_);
    with_precision(problem_.precision, [&]<Precision p>() {
      const SequenceOf<p> s = sequence<SequenceOf<p>>(arrays);
      if (plan_.kernel == Kernel::kPlain) return run_plain<p>(plan_, s, memory, on);
      if (plan_.kernel == Kernel::kCluster) return run_clusters<p>(plan_, s, on);
      (is_gru(problem_.cell) ? run_gru<p> : run_lstm_or_rnn<p>)(plan_, s, memory, on);
    });
  }

 private:
  template <class Sequence>
  Sequence sequence(const std::map<std::string, Address>& addresses) const {
    Sequence s{};
    s.N = problem_.N;
    s.T = problem_.T;
    s.H = problem_.H;
    s.cell = problem_.cell;
    s.direction = problem_.direction;
    s.activation = activation_;
    s.reverse = reverse_;
    s.z_keeps = z_keeps_;
    std::copy(std::begin(gate_position_), std::end(gate_position_), s.gate_position);
    Arrays arrays(addresses);
    arrays.take("mask", s.mask);
    arrays.take("Wh", s.Wh);
    arrays.take("b", s.b);
    arrays.take("h0", s.h0);
    arrays.take("c0", s.c0);
    arrays.take("gates", s.gates);
    arrays.take("hs", s.hs);
    arrays.take("h_n", s.h_n);
    arrays.take("c_n", s.c_n);
    arrays.take("h_prev", s.h_prev);
    arrays.take("cs", s.cs);
    arrays.take("q", s.q);
    arrays.take("dhs", s.dhs);
    arrays.take("dh_n", s.dh_n);
    arrays.take("dc_n", s.dc_n);
    arrays.take("dz", s.dz);
    arrays.take("dz_state", s.dz_state);
    arrays.take("dh0", s.dh0);
    arrays.take("dc0", s.dc0);
    arrays.expect_all_taken();
    s.keep = s.h_prev != nullptr;
    return s;
  }

  Problem problem_;
  bool reverse_, z_keeps_;
  RecurrentActivation activation_;
  int gate_position_[4] = {};
  int number_;
  Device device_;
  Plan plan_;
};

}  // namespace

void bind_recurrent(py::module_& module) {
  module.def("plan", &plan_for, py::arg("cell"), py::arg("direction"), py::arg("precision"), py::arg("N"), py::arg("T"),
             py::arg("H"), py::arg("multiprocessors"), py::arg("shared_bytes"), py::arg("largest_cluster") = 0,
             py::arg("kernel") = py::none());
  py::class_<SequencePass>(module, "SequencePass")
      .def(py::init<const std::string&, const std::string&, const std::string&, Index, Index, Index, bool,
                    const std::string&, bool, int, const std::optional<std::string>&, bool>(),
           py::kw_only(), py::arg("cell"), py::arg("direction"), py::arg("precision"), py::arg("N"), py::arg("T"),
           py::arg("H"), py::arg("reverse"), py::arg("gate_order"), py::arg("hard_sigmoid"), py::arg("device"),
           py::arg("kernel") = py::none(), py::arg("z_keeps") = false)
      .def_property_readonly("workspace_bytes", &SequencePass::workspace_bytes)
      .def_property_readonly("plan", &SequencePass::plan)
      .def("run", &SequencePass::run, py::arg("arrays"), py::arg("workspace"), py::arg("stream"));
}

}  // namespace fastlstm::cuda
