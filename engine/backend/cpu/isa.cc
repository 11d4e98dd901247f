#include "engine/backend/cpu/isa.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace switchyard::cpu {
namespace {

constexpr Isa kAllIsas[] = {Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16, Isa::kAmx};

#if defined(__x86_64__)

struct Features {
  bool avx2 = false;
  bool avx512 = false;
  bool avx512_bf16 = false;
  bool amx = false;
};

// The registers whose content the operating system saves: without that, an instruction that exists still faults.
uint64_t SavedStates() {
  uint32_t low = 0;
  uint32_t high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t{high} << 32) | low;
}

bool RequestTilePermission() {
  constexpr int kArchReqXcompPerm = 0x1023;
  constexpr int kTileData = 18;
  return syscall(SYS_arch_prctl, kArchReqXcompPerm, kTileData) == 0;
}

Features DetectFeatures() {
  constexpr uint64_t kYmm = 0x6;
  constexpr uint64_t kZmm = 0xe6;
  constexpr uint64_t kTiles = 0x60000;
  Features features;
  uint32_t a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0) return features;
  const bool osxsave = (c >> 27) & 1;
  const bool fma = (c >> 12) & 1;
  if (!osxsave || !fma) return features;
  const uint64_t saved = SavedStates();
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return features;
  features.avx2 = ((b >> 5) & 1) && (saved & kYmm) == kYmm;
  const bool f = (b >> 16) & 1, dq = (b >> 17) & 1, bw = (b >> 30) & 1, vl = (b >> 31) & 1;
  features.avx512 = features.avx2 && f && dq && bw && vl && (saved & kZmm) == kZmm;
  const bool vbmi = (c >> 1) & 1;  // on all machines with AMX; their files use it
  const bool amx_bits = ((d >> 24) & 1) && ((d >> 22) & 1) && vbmi && (saved & kTiles) == kTiles;
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d) != 0) features.avx512_bf16 = features.avx512 && ((a >> 5) & 1);
  features.amx = features.avx512_bf16 && amx_bits && RequestTilePermission();
  return features;
}

std::vector<Isa> Detect() {
  const Features features = DetectFeatures();
  std::vector<Isa> isas = {Isa::kScalar};
  if (features.avx2) isas.push_back(Isa::kAvx2);
  if (features.avx512) isas.push_back(Isa::kAvx512);
  if (features.avx512_bf16) isas.push_back(Isa::kAvx512Bf16);
  if (features.amx) isas.push_back(Isa::kAmx);
  return isas;
}

#else

std::vector<Isa> Detect() { return {Isa::kScalar}; }

#endif

std::string Names(const std::vector<Isa>& isas) {
  return absl::StrJoin(isas, ", ", [](std::string* out, Isa isa) { out->append(IsaName(isa)); });
}

}  // namespace

const char* IsaName(Isa isa) {
  switch (isa) {
    case Isa::kScalar: return "scalar";
    case Isa::kAvx2: return "avx2";
    case Isa::kAvx512: return "avx512";
    case Isa::kAvx512Bf16: return "avx512_bf16";
    case Isa::kAmx: return "amx";
  }
  return "unknown";
}

const std::vector<Isa>& AvailableIsas() {
  static const std::vector<Isa>* const isas = new std::vector<Isa>(Detect());
  return *isas;
}

absl::StatusOr<Isa> ChooseIsa(const std::string& name) {
  const std::vector<Isa>& available = AvailableIsas();
  if (name == "auto") return available.back();
  for (const Isa isa : available) {
    if (name == IsaName(isa)) return isa;
  }
  for (const Isa isa : kAllIsas) {
    if (name == IsaName(isa)) {
      return absl::FailedPreconditionError(
          absl::StrCat("cpu_isa is ", name, ", but this machine has only ", Names(available)));
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat("cpu_isa is \"", name, "\", expected auto, scalar, avx2, avx512, avx512_bf16 or amx"));
}

}  // namespace switchyard::cpu
