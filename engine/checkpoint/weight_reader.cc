#include "engine/checkpoint/weight_reader.h"

#include <algorithm>
#include <utility>

#include "engine/base/status_macros.h"

namespace switchyard {
namespace {

constexpr size_t kCachedRuns = 3;  // what two threads need at the border of two experts

// rows [first, first + count) x cols of a view, from the elements that start at its own column-pitch boundary.
template <typename T>
void Gather(const WeightView& view, const T* source, int64_t first, int64_t count, T* out) {
  const T* const base = source + view.offset % view.col_pitch + first * view.row_pitch;
  for (int64_t c = 0; c < view.cols; ++c) {
    const T* const from = base + c * view.col_pitch;
    for (int64_t r = 0; r < count; ++r) out[r * view.cols + c] = from[r * view.row_pitch];
  }
}

}  // namespace

absl::StatusOr<SourceCache::Run> SourceCache::Get(const StoredElements& elements, int64_t first, int64_t count,
                                                  DType as) {
  // Under the lock, so that no run is read twice; the readers that wait would have to wait for the file anyway.
  MutexLock lock(&mutex_);
  for (size_t i = 0; i < entries_.size(); ++i) {
    const Entry& entry = entries_[i];
    if (entry.elements != &elements || entry.first != first || entry.count != count || entry.as != as) continue;
    std::rotate(entries_.begin(), entries_.begin() + static_cast<ptrdiff_t>(i),
                entries_.begin() + static_cast<ptrdiff_t>(i) + 1);
    return entries_.front().run;
  }
  if (entries_.size() == kCachedRuns) entries_.pop_back();
  auto run = std::make_shared<std::vector<char>>(static_cast<size_t>(count * DTypeBytes(as)));
  RETURN_IF_ERROR(elements.Read(first, count, as, run->data()));
  entries_.insert(entries_.begin(), {&elements, first, count, as, run});
  return Run(run);
}

absl::Status WeightReader::ReadRows(int64_t first, int64_t count, DType as, void* out) const {
  if (count == 0) return absl::OkStatus();
  if (view_.col_pitch != 1) return ReadColumns(first, count, as, out);
  const int64_t begin = view_.offset + first * view_.row_pitch;
  if (view_.row_pitch == view_.cols) return elements_->Read(begin, count * view_.cols, as, out);
  for (int64_t r = 0; r < count; ++r) {
    RETURN_IF_ERROR(elements_->Read(begin + r * view_.row_pitch, view_.cols, as,
                                    static_cast<char*>(out) + r * view_.cols * DTypeBytes(as)));
  }
  return absl::OkStatus();
}

QuantizedForm WeightReader::quantized() const {
  const QuantizedForm form = elements_->form();
  if (form.format == QuantizedFormat::kNone || view_.col_pitch != 1) return {};
  const bool is_fp8 = form.format == QuantizedFormat::kFp8;
  const int64_t unit = is_fp8 ? elements_->cols() : kMxfp4Block;
  const bool whole = view_.offset % unit == 0 && view_.row_pitch % unit == 0 &&
                     (is_fp8 ? view_.cols == unit : view_.cols % unit == 0);
  return whole ? form : QuantizedForm{};
}

absl::Status WeightReader::ReadQuantized(int64_t first, int64_t count, uint8_t* codes, void* scales) const {
  const QuantizedForm form = quantized();
  const int64_t begin = view_.offset + first * view_.row_pitch;
  if (view_.row_pitch == view_.cols) return elements_->ReadQuantized(begin, count * view_.cols, codes, scales);
  for (int64_t r = 0; r < count; ++r) {
    RETURN_IF_ERROR(elements_->ReadQuantized(begin + r * view_.row_pitch, view_.cols, codes, scales));
    codes += form.CodeBytes(view_.cols);
    scales = static_cast<char*>(scales) + form.ScalesPerRow(view_.cols) * form.ScaleBytes();
  }
  return absl::OkStatus();
}

absl::Status WeightReader::ReadColumns(int64_t first, int64_t count, DType as, void* out) const {
  const int64_t source_first = view_.offset / view_.col_pitch * view_.col_pitch;
  const int64_t source_count = int64_t{view_.cols} * view_.col_pitch;
  ASSIGN_OR_RETURN(const SourceCache::Run run, cache_->Get(*elements_, source_first, source_count, as));
  if (as == DType::kF32) {
    Gather(view_, reinterpret_cast<const float*>(run->data()), first, count, static_cast<float*>(out));
  } else {
    Gather(view_, reinterpret_cast<const uint16_t*>(run->data()), first, count, static_cast<uint16_t*>(out));
  }
  return absl::OkStatus();
}

}  // namespace switchyard
