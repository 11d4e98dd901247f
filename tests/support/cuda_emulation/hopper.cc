#include "hopper.h"

#include <cuda_runtime_api.h>

#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "emulation.h"
#include "engine/base/bf16.h"

namespace cuda_emulation {
namespace {

constexpr int kWarpSize = 32;
constexpr int kWarpgroupSize = 128;
constexpr int kUnit = 16;          // bytes that stay together when rows are permuted
constexpr int kRowBytes = 128;     // of the one swizzle that is emulated
constexpr int kWgmmaRows = 64;
constexpr int kWgmmaK = 16;

// What a CUtensorMap holds here.
struct TensorMap {
  const char* address;
  uint64_t sizes[2];
  uint64_t stride;  // bytes of a row
  uint32_t box[2];
};
static_assert(sizeof(TensorMap) <= sizeof(CUtensorMap));

struct TileCopy {
  uint32_t to;
  TensorMap map;
  int32_t col;
  int32_t row;
};
struct Barrier {
  int arrivals = 0;  // of a phase
  int missing = 0;
  int64_t missing_bytes = 0;
  uint64_t phase = 0;
  std::vector<TileCopy> copies;
};

struct NamedBarrier {
  int threads = 0;
  int arrived = 0;
  uint64_t generation = 0;
};

// One wgmma of a warpgroup, with its operands as they were when the first of its threads came.
struct Product {
  uint64_t a, b;
  int columns;
  std::vector<uint16_t> a_bits, b_bits;  // [row or column][k]
  std::vector<float> a_values, b_values;
  int threads_left = kWarpgroupSize;
};
struct Warpgroup {
  std::deque<Product> products;
  uint64_t first = 0;  // number of the front one
};
struct PendingProduct {
  uint64_t number;
  float* acc;
  bool accumulate;
};
// Sums of products that are under way; the thread's own copy holds NaN.
struct HiddenSums {
  std::vector<float> sums;
  int under_way = 0;
};
struct HopperThread {
  bool fenced = false;
  uint64_t next_product = 0;
  std::vector<PendingProduct> open;
  std::deque<std::vector<PendingProduct>> groups;
  std::map<float*, HiddenSums> hidden;
  std::vector<uint32_t> unfenced;  // units of shared memory
};

struct Block {
  std::vector<HopperThread> threads;
  std::vector<Warpgroup> warpgroups;
  std::unordered_map<const uint64_t*, Barrier> barriers;
  std::map<int, NamedBarrier> named;
  std::unordered_map<uint32_t, int> unfenced_by;  // unit of shared memory -> thread
  bool touched = false;                           // since it began
};
Block& UntouchedBlock() {
  static Block* const block = new Block;
  return *block;
}
Block& TheBlock() {
  Block& block = UntouchedBlock();
  block.touched = true;
  return block;
}
HopperThread& Current() { return TheBlock().threads[static_cast<size_t>(CurrentThread())]; }

// The hardware's 128-byte swizzle: bits 7-9 of an address are added to bits 4-6.
uint32_t Swizzle(uint32_t address) { return address ^ ((address >> 7 & 7) << 4); }

Barrier& BarrierAt(const uint64_t* at) {
  const auto found = TheBlock().barriers.find(at);
  if (found == TheBlock().barriers.end()) Fatal("uses a barrier that was not initialised");
  return found->second;
}

void Land(const TileCopy& copy) {
  const TensorMap& map = copy.map;
  for (uint32_t r = 0; r < map.box[1]; ++r) {
    for (uint32_t c = 0; c < map.box[0]; ++c) {
      const int64_t row = int64_t{copy.row} + r, col = int64_t{copy.col} + c;
      const bool inside = row >= 0 && col >= 0 && static_cast<uint64_t>(row) < map.sizes[1] &&
                          static_cast<uint64_t>(col) < map.sizes[0];
      uint16_t value = 0;
      if (inside) std::memcpy(&value, map.address + static_cast<uint64_t>(row) * map.stride + col * 2, 2);
      std::memcpy(SharedAt(Swizzle(copy.to + r * kRowBytes + c * 2), 2), &value, 2);
    }
  }
}

void EndPhaseIfComplete(Barrier* barrier) {
  if (barrier->missing > 0) return;
  for (const TileCopy& copy : barrier->copies) {
    Land(copy);
    barrier->missing_bytes -= int64_t{copy.map.box[0]} * copy.map.box[1] * 2;
  }
  barrier->copies.clear();
  if (barrier->missing_bytes < 0) Fatal("a barrier got more bytes than were announced");
  if (barrier->missing_bytes > 0) return;
  ++barrier->phase;
  barrier->missing = barrier->arrivals;
}

// 32 bytes of each row of an operand.
std::vector<uint16_t> ReadOperand(uint64_t descriptor, int rows) {
  const uint32_t start = static_cast<uint32_t>(descriptor & 0x3fff) << 4;
  const uint32_t group = static_cast<uint32_t>(descriptor >> 32 & 0x3fff) << 4;
  if (descriptor >> 62 != 1) Fatal("wgmma with another swizzle than that of 128 bytes, which is not emulated");
  if ((descriptor >> 49 & 7) != 0 || (start >> 7 & 7) != 0) Fatal("wgmma with an operand off the swizzle's 1024 bytes");
  std::vector<uint16_t> values(static_cast<size_t>(rows * kWgmmaK));
  for (int row = 0; row < rows; ++row) {
    for (int unit = 0; unit < kWgmmaK * 2 / kUnit; ++unit) {
      const uint32_t address = Swizzle(start + static_cast<uint32_t>(row / 8) * group +
                                       static_cast<uint32_t>(row % 8 * kRowBytes + unit * kUnit));
      if (TheBlock().unfenced_by.contains(address / kUnit)) {
        Fatal("wgmma reads what cp.async wrote without a proxy fence");
      }
      std::memcpy(values.data() + row * kWgmmaK + unit * kUnit / 2, SharedAt(address, kUnit), kUnit);
    }
  }
  return values;
}

std::vector<float> ToFloats(const std::vector<uint16_t>& bits) {
  std::vector<float> values;
  values.reserve(bits.size());
  for (const uint16_t b : bits) values.push_back(switchyard::Bf16ToFloat(b));
  return values;
}

bool IsPoison(const float* acc, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, acc + i, 4);
    if (bits != 0xffffffffu) return false;
  }
  return true;
}

// The running thread's part of a product: k in order in fp32.
void Multiply(const Product& product, bool accumulate, std::vector<float>* sums) {
  const int thread = CurrentThread() % kWarpgroupSize;
  const int g = thread % kWarpSize / 4, q = thread % 4;
  for (size_t i = 0; i < sums->size(); ++i) {
    const size_t row = static_cast<size_t>(thread / kWarpSize * 16 + g) + (i % 4 / 2) * 8;
    const size_t column = i / 4 * 8 + 2 * static_cast<size_t>(q) + i % 2;
    const float* const a = product.a_values.data() + row * kWgmmaK;
    const float* const b = product.b_values.data() + column * kWgmmaK;
    float sum = accumulate ? (*sums)[i] : 0.0f;
    for (int k = 0; k < kWgmmaK; ++k) sum += a[k] * b[k];
    (*sums)[i] = sum;
  }
}

void Finish(const PendingProduct& pending) {
  Warpgroup& group = TheBlock().warpgroups[static_cast<size_t>(CurrentThread() / kWarpgroupSize)];
  Product& product = group.products[pending.number - group.first];
  if (CurrentThread() % kWarpSize == 0 && (ReadOperand(product.a, kWgmmaRows) != product.a_bits ||
                                           ReadOperand(product.b, product.columns) != product.b_bits)) {
    Fatal("the operands of a wgmma changed while it was under way");
  }
  HiddenSums& hidden = Current().hidden.at(pending.acc);
  Multiply(product, pending.accumulate, &hidden.sums);
  if (--hidden.under_way == 0) {
    if (!IsPoison(pending.acc, hidden.sums.size())) Fatal("writes the sums of a wgmma that is under way");
    std::memcpy(pending.acc, hidden.sums.data(), hidden.sums.size() * 4);
    Current().hidden.erase(pending.acc);
  }
  if (--product.threads_left > 0) return;
  while (!group.products.empty() && group.products.front().threads_left == 0) {
    group.products.pop_front();
    ++group.first;
  }
}

}  // namespace

void SyncThreads(int id, int threads) {
  if (id < 1 || id > 15 || threads <= 0 || threads % kWarpSize != 0) Fatal("uses a barrier that does not exist");
  NamedBarrier& barrier = TheBlock().named[id];
  if (barrier.arrived == 0) barrier.threads = threads;
  if (barrier.threads != threads) Fatal("waits at a barrier with another number of threads than its neighbours");
  if (++barrier.arrived == threads) {
    barrier.arrived = 0;
    ++barrier.generation;
    return;
  }
  const uint64_t generation = barrier.generation;
  WaitUntil([&barrier, generation] { return barrier.generation != generation; });
}

void InitMbarrier(uint64_t* barrier, int arrivals) {
  if (reinterpret_cast<uintptr_t>(barrier) % 8 != 0 || arrivals <= 0) Fatal("initialises a barrier wrongly");
  TheBlock().barriers[barrier] = {arrivals, arrivals, 0, 0, {}};
}

void ArriveExpect(uint64_t* at, uint32_t bytes) {
  Barrier& barrier = BarrierAt(at);
  EndPhaseIfComplete(&barrier);
  if (barrier.missing == 0) Fatal("arrives at a barrier more often than it expects");
  barrier.missing_bytes += bytes;
  if (--barrier.missing == 0 && barrier.missing_bytes == 0) EndPhaseIfComplete(&barrier);
}

void WaitParity(uint64_t* at, uint32_t parity) {
  Barrier& barrier = BarrierAt(at);
  WaitUntil([&barrier, parity] {
    if (barrier.phase % 2 == parity) EndPhaseIfComplete(&barrier);
    return barrier.phase % 2 != parity;
  });
}

void FenceProxyAsync() {
  for (const uint32_t unit : Current().unfenced) {
    const auto by = TheBlock().unfenced_by.find(unit);
    if (by != TheBlock().unfenced_by.end() && by->second == CurrentThread()) TheBlock().unfenced_by.erase(by);
  }
  Current().unfenced.clear();
}

void WroteByCopyAsync(const void* to, int bytes) {
  for (int i = 0; i < bytes; i += kUnit) {
    const uint32_t unit = SharedAddressOf(static_cast<const char*>(to) + i) / kUnit;
    TheBlock().unfenced_by[unit] = CurrentThread();
    Current().unfenced.push_back(unit);
  }
}

void CopyTile(void* to, const CUtensorMap& map, int32_t col, int32_t row, uint64_t* barrier) {
  TileCopy copy = {SharedAddressOf(to), {}, col, row};
  std::memcpy(&copy.map, &map, sizeof(copy.map));
  if (reinterpret_cast<uintptr_t>(&map) % 64 != 0) Fatal("a tensor map is not aligned");
  if (copy.to % 128 != 0) Fatal("copies a tile to an address that is not a multiple of 128");
  if (copy.map.box[0] * 2 != kRowBytes) Fatal("copies a tile whose rows have not 128 bytes, which is not emulated");
  const size_t bytes = size_t{copy.map.box[1]} * kRowBytes;
  std::memset(SharedAt(copy.to, static_cast<int>(bytes)), 0xff, bytes);  // whatever is read before the wait is wrong
  BarrierAt(barrier).copies.push_back(copy);
}

void WgmmaFence() { Current().fenced = true; }

void WgmmaBf16(float* acc, int count, uint64_t a, uint64_t b, bool accumulate) {
  HopperThread& thread = Current();
  if (!thread.fenced) Fatal("multiplies without a wgmma fence");
  Warpgroup& group = TheBlock().warpgroups[static_cast<size_t>(CurrentThread() / kWarpgroupSize)];
  const uint64_t number = thread.next_product++;
  if (number == group.first + group.products.size()) {
    Product product = {a, b, 2 * count, ReadOperand(a, kWgmmaRows), ReadOperand(b, 2 * count), {}, {}};
    product.a_values = ToFloats(product.a_bits);
    product.b_values = ToFloats(product.b_bits);
    group.products.push_back(std::move(product));
  }
  const Product& product = group.products[number - group.first];
  if (product.a != a || product.b != b || product.columns != 2 * count) {
    Fatal("the threads of a warpgroup want different products");
  }
  const auto [at, is_new] = thread.hidden.try_emplace(acc);
  HiddenSums& hidden = at->second;
  if (is_new) {
    hidden.sums.assign(acc, acc + count);
    std::memset(acc, 0xff, static_cast<size_t>(count) * 4);
  } else if (!IsPoison(acc, static_cast<size_t>(count))) {
    Fatal("writes the sums of a wgmma that is under way");
  }
  ++hidden.under_way;
  thread.open.push_back({number, acc, accumulate});
}

void WgmmaCommit() {
  Current().groups.push_back(std::move(Current().open));
  Current().open.clear();
}

void WgmmaWait(int pending) {
  HopperThread& thread = Current();
  while (static_cast<int>(thread.groups.size()) > pending) {
    for (const PendingProduct& product : thread.groups.front()) Finish(product);
    thread.groups.pop_front();
  }
  if (thread.hidden.empty()) thread.fenced = false;  // its sums may be touched now
}

void BeginHopperBlock(int num_threads) {
  Block& block = UntouchedBlock();
  if (!block.touched && static_cast<int>(block.threads.size()) == num_threads) return;
  block = {};
  block.threads.resize(static_cast<size_t>(num_threads));
  block.warpgroups.resize(static_cast<size_t>(num_threads / kWarpgroupSize + 1));
}

void EndHopperBlock() {
  if (!UntouchedBlock().touched) return;
  for (const auto& [at, barrier] : TheBlock().barriers) {
    if (!barrier.copies.empty()) Fatal("ends with copies of tiles that nobody waited for");
  }
  for (const HopperThread& thread : TheBlock().threads) {
    if (!thread.hidden.empty()) Fatal("ends with products that nobody waited for");
  }
}

}  // namespace cuda_emulation

// Checks what the driver's documentation asks for.
CUresult cuTensorMapEncodeTiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* address,
                                const cuuint64_t* sizes, const cuuint64_t* strides, const cuuint32_t* box,
                                const cuuint32_t* steps, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion, CUtensorMapFloatOOBfill) {
  constexpr uint64_t kMaxSize = uint64_t{1} << 32, kMaxStride = uint64_t{1} << 40;
  constexpr uint32_t kMaxBox = 256, kMaxStep = 8, kSwizzleSpans[] = {kMaxBox * 2, 32, 64, 128};
  if (rank != 2 || type != CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 || interleave != CU_TENSOR_MAP_INTERLEAVE_NONE) {
    return CUDA_ERROR_INVALID_VALUE;  // legal, but not emulated
  }
  if (reinterpret_cast<uintptr_t>(map) % 64 != 0 || reinterpret_cast<uintptr_t>(address) % 16 != 0 ||
      strides[0] % 16 != 0 || strides[0] >= kMaxStride || strides[0] < sizes[0] * 2 || box[0] * 2 % 16 != 0 ||
      box[0] * 2 > kSwizzleSpans[swizzle]) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  for (int i = 0; i < 2; ++i) {
    if (sizes[i] == 0 || sizes[i] > kMaxSize || box[i] == 0 || box[i] > kMaxBox || steps[i] == 0 ||
        steps[i] > kMaxStep) {
      return CUDA_ERROR_INVALID_VALUE;
    }
  }
  if (swizzle != CU_TENSOR_MAP_SWIZZLE_128B || steps[1] != 1) return CUDA_ERROR_INVALID_VALUE;  // not emulated
  const cuda_emulation::TensorMap stored = {
      static_cast<const char*>(address), {sizes[0], sizes[1]}, strides[0], {box[0], box[1]}};
  std::memcpy(map->opaque, &stored, sizeof(stored));
  return CUDA_SUCCESS;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function, unsigned version, unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
  const bool known = std::string_view(symbol) == "cuTensorMapEncodeTiled";
  *function = known && version >= 12000 ? reinterpret_cast<void*>(&cuTensorMapEncodeTiled) : nullptr;
  *result = !known                 ? cudaDriverEntryPointSymbolNotFound
            : *function == nullptr ? cudaDriverEntryPointVersionNotSufficent
                                   : cudaDriverEntryPointSuccess;
  return cudaSuccess;
}
