#include "emulation.h"

#include <cuda_runtime.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <unordered_map>
#include <vector>

#include "hopper.h"

dim3 threadIdx, blockIdx, blockDim, gridDim;

struct EmulatedGraph {
  std::vector<std::function<void()>> calls;
};
// Work waits in the stream until somebody waits for it, as late as a device may do it.
struct EmulatedStream {
  std::unique_ptr<EmulatedGraph> capture;
  std::deque<std::function<void()>> queue;
};
struct EmulatedEvent {
  uint64_t nanoseconds = 0;  // 0: not recorded yet
  EmulatedStream* stream = nullptr;
  int num_recorded = 0;  // calls of cudaEventRecord
  int num_passed = 0;    // of these, reached by the stream
};

namespace cuda_emulation {
namespace {

constexpr int kMaxThreads = 1024;
// Not a power of two, or what the threads of a block have at the same depth would fall into one set of the caches.
constexpr size_t kStackBytes = (128 << 10) + 17 * 64;
constexpr int kWarpSize = 32;
constexpr uint32_t kSharedBase = 1024 + 128;

// Where a fiber stopped. x86-64 saves the few registers that a call must keep; elsewhere the C library does it.
#if defined(__x86_64__)
struct Context {
  void* stack_pointer = nullptr;
};
extern "C" void SwitchyardSwitchFiber(void** save, void* load);
asm(R"(
.text
.globl SwitchyardSwitchFiber
.type SwitchyardSwitchFiber, @function
SwitchyardSwitchFiber:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size SwitchyardSwitchFiber, .-SwitchyardSwitchFiber
)");
void Switch(Context* save, Context* load) { SwitchyardSwitchFiber(&save->stack_pointer, load->stack_pointer); }
void Prepare(Context* context, char* stack, void (*entry)()) {
  // A stack that "returns" into entry with the alignment of a call: six registers, the address, and a null behind it.
  auto* top = reinterpret_cast<uint64_t*>(stack + kStackBytes) - 1;
  top[0] = 0;
  *--top = reinterpret_cast<uint64_t>(entry);
  for (int i = 0; i < 6; ++i) *--top = 0;
  context->stack_pointer = top;
}
#else
struct Context {
  ucontext_t context;
};
void Switch(Context* save, Context* load) { swapcontext(&save->context, &load->context); }
void Prepare(Context* context, char* stack, void (*entry)()) {
  getcontext(&context->context);
  context->context.uc_stack.ss_sp = stack;
  context->context.uc_stack.ss_size = kStackBytes;
  context->context.uc_link = nullptr;
  makecontext(&context->context, entry, 0);
}
#endif

struct Copy {
  void* to;
  const void* from;
  int bytes;
};

enum class Waiting : uint8_t { kNo, kForWarp, kForBlock, kForCondition, kDone };

struct Thread {
  Context context;
  Waiting waiting = Waiting::kNo;
  uint64_t generation = 0;  // of what it waits for
  std::function<bool()> condition;
  dim3 index;
  std::vector<Copy> copies;           // under way, oldest first; those behind the last group are not committed
  std::vector<size_t> groups;         // copies of each committed group, oldest first
  size_t num_committed = 0;           // the sum of groups
  bool begun = false;  // called BeginKernel
};

struct Warp {
  unsigned arrived = 0;
  unsigned mask = 0;
  uint64_t generation = 0;
  uint64_t values[2][kWarpSize];  // of even and odd generations: a fast lane may be one ahead
};

struct Machine {
  char* stacks = nullptr;
  Context scheduler;
  std::vector<Thread> threads = std::vector<Thread>(kMaxThreads);
  std::vector<Warp> warps = std::vector<Warp>(kMaxThreads / kWarpSize);
  int num_threads = 0;
  int num_alive = 0;
  int arrived = 0;           // at the block's barrier
  uint64_t generation = 0;   // of the barrier
  bool block_and = true;     // of the predicates at the barrier
  int current = 0;
  const KernelLaunch* launch = nullptr;
  std::unique_ptr<char[]> shared;
  size_t shared_bytes = 0;
  ThreadOrder order = ThreadOrder::kForward;
  BlockOrder block_order = BlockOrder::kForward;
  std::mt19937 random;  // of kShuffled
  int64_t num_graph_launches = 0;
  bool refuse_capture = false;
  size_t memory = size_t{64} << 30;
  size_t shared_memory = kMaxSharedMemory;  // that a block may have
  size_t used = 0;
  std::unordered_map<void*, size_t> allocations;
  std::map<const char*, size_t> pinned;
  std::vector<EmulatedStream*> streams;
  EmulatedStream legacy;  // for which the others do not wait, nor it for them
  bool capturing = false;
  int major = 9, minor = 0;  // compute capability
  cudaError_t pending = cudaSuccess;  // of the next synchronisation
  cudaError_t last = cudaSuccess;
};

Machine& TheMachine() {
  static Machine* const machine = new Machine;
  return *machine;
}

void ReleaseBlockIfComplete(Machine& m) {
  if (m.num_alive == 0 || m.arrived < m.num_alive) return;
  m.arrived = 0;
  ++m.generation;
}

bool CanRun(Machine& m, int t) {
  const Thread& thread = m.threads[t];
  m.current = t;
  switch (thread.waiting) {
    case Waiting::kNo: return true;
    case Waiting::kForWarp: return m.warps[t / kWarpSize].generation != thread.generation;
    case Waiting::kForBlock: return m.generation != thread.generation;
    case Waiting::kForCondition: return thread.condition();
    case Waiting::kDone: return false;
  }
  return false;
}

void SwitchTo(Machine& m, Context* from, int t) {
  m.threads[t].waiting = Waiting::kNo;
  m.current = t;
  threadIdx = m.threads[t].index;
  Context* const to = &m.threads[t].context;
  if (from != to) Switch(from, to);
}

// Goes on with the next thread that can run, round and round. Without a scheduler between: threads mostly stop at the
// same place, and the processor then predicts where they return.
void Yield(Machine& m) {
  Context* const from = &m.threads[m.current].context;
  if (m.num_alive == 0) {
    Switch(from, &m.scheduler);
    return;
  }
  const int step = m.order == ThreadOrder::kForward ? 1 : m.num_threads - 1;
  int t = m.current;
  for (int i = 0; i < m.num_threads; ++i) {
    t += step;
    if (t >= m.num_threads) t -= m.num_threads;
    if (!CanRun(m, t)) continue;
    SwitchTo(m, from, t);
    return;
  }
  Fatal("its block's threads wait for each other");
}

void ThreadMain() {
  Machine& m = TheMachine();
  m.launch->body();
  Thread& thread = m.threads[m.current];
  if (!thread.begun) Fatal("ends without BeginKernel");
  if (thread.num_committed > 0) Fatal("ends with copies that nobody waited for");
  if (!thread.copies.empty()) Fatal("ends with copies that were not committed");
  thread.waiting = Waiting::kDone;
  --m.num_alive;
  ReleaseBlockIfComplete(m);
  Yield(m);
}

void RunBlock(Machine& m) {
  const KernelLaunch& launch = *m.launch;
  m.num_threads = m.num_alive = static_cast<int>(launch.block.x * launch.block.y * launch.block.z);
  m.arrived = 0;
  if (m.shared == nullptr || m.shared_bytes != launch.shared_bytes) {
    m.shared.reset(new char[launch.shared_bytes + 1]);  // a heap block of its own, for AddressSanitizer
    m.shared_bytes = launch.shared_bytes;
  }
  std::memset(m.shared.get(), 0xff, launch.shared_bytes);  // NaN in every format
  for (Warp& warp : m.warps) warp.arrived = warp.mask = 0;
  BeginHopperBlock(m.num_threads);
  for (int t = 0; t < m.num_threads; ++t) {
    Thread& thread = m.threads[t];
    thread.waiting = Waiting::kNo;
    thread.begun = false;
    thread.index = dim3(t % launch.block.x, t / launch.block.x % launch.block.y, t / launch.block.x / launch.block.y);
    thread.copies.clear();
    thread.groups.clear();
    thread.num_committed = 0;
    Prepare(&thread.context, m.stacks + t * kStackBytes, ThreadMain);
  }
  SwitchTo(m, &m.scheduler, m.order == ThreadOrder::kForward ? 0 : m.num_threads - 1);
  EndHopperBlock();
}

void Run(const KernelLaunch& launch) {
  Machine& m = TheMachine();
  if (m.stacks == nullptr) {
    m.stacks = static_cast<char*>(mmap(nullptr, kMaxThreads * kStackBytes, PROT_READ | PROT_WRITE,
                                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  }
  m.launch = &launch;
  gridDim = launch.grid;
  blockDim = launch.block;
  std::vector<unsigned> blocks(size_t{gridDim.x} * gridDim.y * gridDim.z);
  std::iota(blocks.begin(), blocks.end(), 0u);
  if (m.block_order == BlockOrder::kReverse) std::reverse(blocks.begin(), blocks.end());
  if (m.block_order == BlockOrder::kShuffled) std::shuffle(blocks.begin(), blocks.end(), m.random);
  for (const unsigned block : blocks) {
    blockIdx = dim3(block % gridDim.x, block / gridDim.x % gridDim.y, block / gridDim.x / gridDim.y);
    RunBlock(m);
  }
}

cudaError_t CallOrRecord(cudaStream_t stream, std::function<void()> call) {
  if (stream != nullptr && stream->capture != nullptr) {
    stream->capture->calls.push_back(std::move(call));
  } else {
    (stream != nullptr ? stream : &TheMachine().legacy)->queue.push_back(std::move(call));
  }
  return cudaSuccess;
}

cudaError_t Fail(cudaError_t error) {
  TheMachine().last = error;
  return error;
}

// What FailNextSynchronize asked for.
cudaError_t PendingError() {
  if (TheMachine().pending == cudaSuccess) return cudaSuccess;
  const cudaError_t error = TheMachine().pending;
  TheMachine().pending = cudaSuccess;
  return Fail(error);
}

void RunNext(EmulatedStream* stream) {
  const std::function<void()> call = std::move(stream->queue.front());
  stream->queue.pop_front();
  call();
}

void Drain(EmulatedStream* stream) {
  while (!stream->queue.empty()) RunNext(stream);
}

// Everything there is; the legacy stream last, because nobody may count on it.
void DrainAll() {
  for (EmulatedStream* stream : TheMachine().streams) Drain(stream);
  Drain(&TheMachine().legacy);
}

bool IsPinned(const void* pointer) {
  const auto& pinned = TheMachine().pinned;
  auto after = pinned.upper_bound(static_cast<const char*>(pointer));
  if (after == pinned.begin()) return false;
  const auto& [base, bytes] = *--after;
  return static_cast<const char*>(pointer) < base + bytes;
}

// Calls that wait or allocate cannot be captured.
#define REFUSE_WHILE_CAPTURING() \
  if (TheMachine().capturing) return Fail(cudaErrorStreamCaptureUnsupported)

}  // namespace

void LaunchKernel(KernelLaunch launch, cudaStream_t stream) {
  if (launch.block.x * launch.block.y * launch.block.z > kMaxThreads || launch.grid.y > 65535 ||
      launch.grid.z > 65535 || launch.shared_bytes > TheMachine().shared_memory) {
    Fail(cudaErrorInvalidValue);
    return;
  }
  CallOrRecord(stream, [launch = std::move(launch)] { Run(launch); });
}

void RunOnStream(cudaStream_t stream, std::function<void()> call) { CallOrRecord(stream, std::move(call)); }

void Fatal(const char* what) {
  const Machine& m = TheMachine();
  std::fprintf(stderr, "emulated kernel %p, block (%u, %u, %u), thread %d: %s\n", m.launch->kernel, blockIdx.x,
               blockIdx.y, blockIdx.z, m.current, what);
  std::abort();
}

int CurrentThread() { return TheMachine().current; }

void BeginKernel() { TheMachine().threads[TheMachine().current].begun = true; }

void WaitUntil(std::function<bool()> condition) {
  if (condition()) return;
  Machine& m = TheMachine();
  Thread& thread = m.threads[m.current];
  thread.condition = std::move(condition);
  thread.waiting = Waiting::kForCondition;
  Yield(m);
}

uint32_t SharedAddressOf(const void* pointer) {
  return kSharedBase + static_cast<uint32_t>(static_cast<const char*>(pointer) - TheMachine().shared.get());
}

void* SharedAt(uint32_t address, int bytes) {
  const Machine& m = TheMachine();
  if (address < kSharedBase || address + static_cast<uint32_t>(bytes) > kSharedBase + m.launch->shared_bytes) {
    Fatal("reaches outside of its shared memory");
  }
  return m.shared.get() + (address - kSharedBase);
}

void* SharedMemory() {
  // 128-byte alignment is promised by the real thing, 16 is what the kernels need.
  return TheMachine().shared.get();
}

int Lane() { return TheMachine().current % kWarpSize; }

void WaitForBlock() {
  Machine& m = TheMachine();
  Thread& thread = m.threads[m.current];
  thread.generation = m.generation;
  thread.waiting = Waiting::kForBlock;
  ++m.arrived;
  ReleaseBlockIfComplete(m);
  Yield(m);
}

bool AllOfBlock(bool predicate) {
  Machine& m = TheMachine();
  m.block_and = m.block_and && predicate;
  WaitForBlock();
  const bool all = m.block_and;
  WaitForBlock();  // everybody has read it
  m.block_and = true;
  return all;
}

const uint64_t* ExchangeInWarp(unsigned mask, uint64_t value) {
  Machine& m = TheMachine();
  Warp& warp = m.warps[m.current / kWarpSize];
  const unsigned bit = 1u << (m.current % kWarpSize);
  if ((mask & bit) == 0) Fatal("calls a warp function without being in its mask");
  if (warp.arrived == 0) {
    warp.mask = mask;
  } else if (warp.mask != mask) {
    Fatal("calls a warp function with another mask than its neighbours");
  }
  uint64_t* const values = warp.values[warp.generation % 2];
  values[m.current % kWarpSize] = value;
  warp.arrived |= bit;
  if (warp.arrived == mask) {
    warp.arrived = 0;
    ++warp.generation;
    return values;
  }
  Thread& thread = m.threads[m.current];
  thread.generation = warp.generation;
  thread.waiting = Waiting::kForWarp;
  Yield(m);
  return values;
}

void CopyAsync(void* to, const void* from, int bytes) {
  Machine& m = TheMachine();
  if (reinterpret_cast<uintptr_t>(to) % bytes != 0 || reinterpret_cast<uintptr_t>(from) % bytes != 0) {
    Fatal("copies from or to an address that is not aligned");
  }
  std::memset(to, 0xff, bytes);  // whatever is read before the wait is wrong
  m.threads[m.current].copies.push_back({to, from, bytes});
}

void CommitCopies() {
  Thread& thread = TheMachine().threads[TheMachine().current];
  thread.groups.push_back(thread.copies.size() - thread.num_committed);
  thread.num_committed = thread.copies.size();
}

void WaitForCopies(int pending) {
  Thread& thread = TheMachine().threads[TheMachine().current];
  if (static_cast<int>(thread.groups.size()) <= pending) return;
  const auto first_pending = thread.groups.end() - pending;
  const size_t num_landing = std::accumulate(thread.groups.begin(), first_pending, size_t{0});
  for (size_t i = 0; i < num_landing; ++i) {
    const Copy& copy = thread.copies[i];
    if (copy.from == nullptr) {
      std::memset(copy.to, 0, copy.bytes);
    } else {
      std::memcpy(copy.to, copy.from, copy.bytes);
    }
    WroteByCopyAsync(copy.to, copy.bytes);
  }
  thread.copies.erase(thread.copies.begin(), thread.copies.begin() + static_cast<std::ptrdiff_t>(num_landing));
  thread.groups.erase(thread.groups.begin(), first_pending);
  thread.num_committed -= num_landing;
}

uint64_t Nanoseconds() {
  return static_cast<uint64_t>(std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count());
}

void SetThreadOrder(ThreadOrder order) { TheMachine().order = order; }
void SetBlockOrder(BlockOrder order) { TheMachine().block_order = order; }
int64_t NumGraphLaunches() { return TheMachine().num_graph_launches; }
void SetRefuseCapture(bool refuse) { TheMachine().refuse_capture = refuse; }
void FailNextSynchronize(cudaError_t error) { TheMachine().pending = error; }
void SetDeviceMemory(size_t bytes) { TheMachine().memory = bytes; }
void SetSharedMemory(size_t bytes) { TheMachine().shared_memory = bytes; }
void SetComputeCapability(int major, int minor) {
  TheMachine().major = major;
  TheMachine().minor = minor;
}

}  // namespace cuda_emulation

using cuda_emulation::CallOrRecord;
using cuda_emulation::Drain;
using cuda_emulation::DrainAll;
using cuda_emulation::Fail;
using cuda_emulation::TheMachine;

cudaError_t cudaDriverGetVersion(int* version) {
  *version = 0;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) { return cudaDriverGetVersion(version); }

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {};
  std::snprintf(properties->name, sizeof(properties->name), "emulated device");
  properties->major = TheMachine().major;
  properties->minor = TheMachine().minor;
  properties->multiProcessorCount = 3;  // few, so that persistent kernels walk
  properties->totalGlobalMem = TheMachine().memory;
  properties->sharedMemPerBlockOptin = TheMachine().shared_memory;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int) { return cudaSuccess; }

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  REFUSE_WHILE_CAPTURING();
  *total = TheMachine().memory;
  *free = *total - TheMachine().used;
  return cudaSuccess;
}

// Large buffers come and go with each backend of a test: huge pages, because most of their cost is page faults.
static void* Allocate(size_t bytes) {
  constexpr size_t kHugePage = 2 << 20;
  const size_t alignment = bytes < kHugePage ? 256 : kHugePage;
  void* pointer = nullptr;
  if (posix_memalign(&pointer, alignment, (bytes + 255) / 256 * 256) != 0) return nullptr;
  if (bytes >= kHugePage) madvise(pointer, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
  return pointer;
}

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  REFUSE_WHILE_CAPTURING();
  auto& m = TheMachine();
  if (bytes > m.memory - m.used) return Fail(cudaErrorMemoryAllocation);
  *pointer = Allocate(bytes);
  if (*pointer == nullptr) return Fail(cudaErrorMemoryAllocation);
  m.used += bytes;
  m.allocations[*pointer] = bytes;
  return cudaSuccess;
}

cudaError_t cudaFree(void* pointer) {
  REFUSE_WHILE_CAPTURING();
  DrainAll();
  auto& m = TheMachine();
  const auto found = m.allocations.find(pointer);
  if (found == m.allocations.end()) return pointer == nullptr ? cudaSuccess : Fail(cudaErrorInvalidValue);
  m.used -= found->second;
  m.allocations.erase(found);
  std::free(pointer);
  return cudaSuccess;
}

cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned) {
  REFUSE_WHILE_CAPTURING();
  *pointer = Allocate(bytes);
  if (*pointer == nullptr) return Fail(cudaErrorMemoryAllocation);
  TheMachine().pinned[static_cast<const char*>(*pointer)] = bytes;
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void* pointer) {
  REFUSE_WHILE_CAPTURING();
  DrainAll();
  TheMachine().pinned.erase(static_cast<const char*>(pointer));
  std::free(pointer);
  return cudaSuccess;
}

// On device memory it returns at once, and only the legacy stream waits for it.
cudaError_t cudaMemset(void* pointer, int value, size_t bytes) {
  REFUSE_WHILE_CAPTURING();
  return CallOrRecord(nullptr, [=] { std::memset(pointer, value, bytes); });
}

cudaError_t cudaMemsetAsync(void* pointer, int value, size_t bytes, cudaStream_t stream) {
  return CallOrRecord(stream, [=] { std::memset(pointer, value, bytes); });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  if (kind == cudaMemcpyHostToDevice && !cuda_emulation::IsPinned(from)) {
    // Ordinary memory is read before the call returns.
    std::vector<char> copy(static_cast<const char*>(from), static_cast<const char*>(from) + bytes);
    return CallOrRecord(stream, [to, copy = std::move(copy)] { std::memcpy(to, copy.data(), copy.size()); });
  }
  return CallOrRecord(stream, [=] { std::memcpy(to, from, bytes); });
}

cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind, cudaStream_t stream) {
  return CallOrRecord(stream, [=] {
    for (size_t row = 0; row < height; ++row) {
      std::memcpy(static_cast<char*>(to) + row * to_pitch, static_cast<const char*>(from) + row * from_pitch, width);
    }
  });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new EmulatedStream;
  TheMachine().streams.push_back(*stream);
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  Drain(stream);
  std::erase(TheMachine().streams, stream);
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  REFUSE_WHILE_CAPTURING();
  Drain(stream != nullptr ? stream : &TheMachine().legacy);
  return cuda_emulation::PendingError();
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new EmulatedEvent;
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  DrainAll();
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  event->stream = stream;
  ++event->num_recorded;
  return CallOrRecord(stream, [event] {
    event->nanoseconds = cuda_emulation::Nanoseconds();
    ++event->num_passed;
  });
}

// What the stream holds behind the event stays undone.
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  REFUSE_WHILE_CAPTURING();
  while (event->num_passed < event->num_recorded) cuda_emulation::RunNext(event->stream);
  return cuda_emulation::PendingError();
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  if (start->nanoseconds == 0 || end->nanoseconds == 0) return Fail(cudaErrorInvalidValue);
  *milliseconds = static_cast<float>(end->nanoseconds - start->nanoseconds) * 1e-6f;
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (TheMachine().refuse_capture) return Fail(cudaErrorInvalidValue);
  TheMachine().capturing = true;
  stream->capture = std::make_unique<EmulatedGraph>();
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = stream->capture.release();
  TheMachine().capturing = false;
  return *graph == nullptr ? Fail(cudaErrorInvalidValue) : cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  *executable = new EmulatedGraph(*graph);
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  ++TheMachine().num_graph_launches;
  return CallOrRecord(stream, [executable] {
    for (const auto& call : executable->calls) call();
  });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  DrainAll();
  delete executable;
  return cudaSuccess;
}

cudaError_t cudaGetLastError() {
  const cudaError_t error = TheMachine().last;
  TheMachine().last = cudaSuccess;
  return error;
}

cudaError_t cudaPeekAtLastError() { return TheMachine().last; }

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorIllegalAddress: return "an illegal memory access was encountered";
    case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorInvalidValue: return "invalid argument";
  }
  return "unknown error";
}
