// Chooses the instruction set, once.
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>

#include "kernels.h"

namespace fastlstm {

// One entry a compiled instruction set, lowest first; CMake compiles the same ones.
#if defined(__x86_64__)
namespace baseline {
extern const InstructionSet table;
}
namespace avx2 {
extern const InstructionSet table;
}
namespace avx512 {
extern const InstructionSet table;
}
namespace avx512_bf16 {
extern const InstructionSet table;
}
#elif defined(__aarch64__)
namespace neon {
extern const InstructionSet table;
}
#else
namespace baseline {
extern const InstructionSet table;
}
#endif

namespace {

struct Candidate {
  const InstructionSet* table;
  bool supported;
};

const InstructionSet& choose() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2_works = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512_works = avx2_works && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                            __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  // Wherever it is there, its bf16 products are used. AMD's vdpbf16ps has twice the rate of float32; where it has no
  // more than that rate, as on some of Intel's, the rounding in software may be as fast: not measured.
  const bool avx512_bf16_works = avx512_works && __builtin_cpu_supports("avx512bf16");
  const Candidate candidates[] = {{&baseline::table, true},
                                  {&avx2::table, avx2_works},
                                  {&avx512::table, avx512_works},
                                  {&avx512_bf16::table, avx512_bf16_works}};
#elif defined(__aarch64__)
  const Candidate candidates[] = {{&neon::table, true}};
#else
  const Candidate candidates[] = {{&baseline::table, true}};
#endif

  const char* const variable = std::getenv("FASTLSTM_MAX_ISA");
  const std::string_view limit = variable ? variable : "";
  const InstructionSet* best = nullptr;
  bool limit_found = limit.empty();
  std::string names;
  for (const Candidate& candidate : candidates) {
    if (candidate.supported && (limit.empty() || !limit_found)) best = candidate.table;
    if (limit == candidate.table->name) limit_found = true;
    names += names.empty() ? "" : ", ";
    names += candidate.table->name;
  }
  if (!limit_found) {
    throw std::invalid_argument("FASTLSTM_MAX_ISA is '" + std::string(limit) + "', expected one of " + names +
                                " on this processor; unset it to use the best one");
  }
  return *best;
}

}  // namespace

const InstructionSet& instruction_set() {
  static const InstructionSet& chosen = choose();
  return chosen;
}

}  // namespace fastlstm
