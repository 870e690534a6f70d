// Chooses the instruction set, once.
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>

#include "kernels.h"

namespace fastlstm {

// CMake names the instruction sets that are compiled, lowest first: X(baseline) X(avx2) and so on.
#define X(isa)                       \
  namespace isa {                    \
  extern const InstructionSet table; \
  }
FASTLSTM_INSTRUCTION_SETS
#undef X

namespace {

bool supported([[maybe_unused]] std::string_view isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  if (isa == "avx2") return avx2;
  if (isa == "avx512") return avx512;
  // Wherever it is there, its bf16 products are used. AMD's vdpbf16ps has twice the rate of float32; where it has no
  // more than that rate, as on some of Intel's, the rounding in software may be as fast: not measured.
  if (isa == "avx512_bf16") return avx512 && __builtin_cpu_supports("avx512bf16");
#endif
  return true;  // every processor of this architecture has it
}

const InstructionSet& choose() {
#define X(isa) &isa::table,
  const InstructionSet* const candidates[] = {FASTLSTM_INSTRUCTION_SETS};
#undef X

  const char* const variable = std::getenv("FASTLSTM_MAX_ISA");
  const std::string_view limit = variable ? variable : "";
  const InstructionSet* best = nullptr;
  bool limit_found = limit.empty();
  std::string names;
  for (const InstructionSet* candidate : candidates) {
    if (supported(candidate->name) && (limit.empty() || !limit_found)) best = candidate;
    if (limit == candidate->name) limit_found = true;
    names += names.empty() ? "" : ", ";
    names += candidate->name;
  }
  if (!limit_found) {
    throw std::invalid_argument("FASTLSTM_MAX_ISA is '" + std::string(limit) + "', expected one of " + names +
                                " on this processor; unset it to use the best one");
  }
  if (best == nullptr) throw std::runtime_error("compiled for " + names + ", none of which this processor has");
  return *best;
}

}  // namespace

const InstructionSet& instruction_set() {
  static const InstructionSet& chosen = choose();
  return chosen;
}

}  // namespace fastlstm
