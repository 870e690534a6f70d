// Chooses the instruction set, once.
#if defined(__x86_64__)
#include <cpuid.h>
#endif

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

#if defined(__x86_64__)
// What the processor has and the operating system keeps. __builtin_cpu_supports says no to everything where the
// runtime library is zig's, as in builds for Windows.
struct Processor {
  bool avx2 = false, avx512 = false, avx512_bf16 = false;

  Processor() {
    unsigned a, b, c, d, kept, unused;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return;
    const bool fma = c & bit_FMA;
    __asm__ volatile("xgetbv" : "=a"(kept), "=d"(unused) : "c"(0));
    const bool ymm = (kept & 0x06) == 0x06;
#if defined(__APPLE__)
    const bool zmm = ymm;  // kept once a thread has used them
#else
    const bool zmm = (kept & 0xe6) == 0xe6;
#endif
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return;
    constexpr unsigned kAvx512 = bit_AVX512F | bit_AVX512DQ | bit_AVX512BW | bit_AVX512VL;
    avx2 = ymm && fma && (b & bit_AVX2);
    avx512 = avx2 && zmm && (b & kAvx512) == kAvx512;
    const unsigned last = a;
    avx512_bf16 = avx512 && last >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & bit_AVX512BF16);
  }
};
#endif

bool supported([[maybe_unused]] std::string_view isa) {
#if defined(__x86_64__)
  static const Processor processor;
  if (isa == "avx2") return processor.avx2;
  if (isa == "avx512") return processor.avx512;
  // Wherever it is there, its bf16 products are used. AMD's vdpbf16ps has twice the rate of float32; where it has no
  // more than that rate, as on some of Intel's, the rounding in software may be as fast: not measured.
  if (isa == "avx512_bf16") return processor.avx512_bf16;
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
