#include "server/scheduler/kv_block_pool.h"

#include <algorithm>
#include <bit>

#include "engine/base/status_macros.h"

namespace switchyard {
namespace {

// Only speed depends on its quality: equality is always checked.
uint64_t HashContent(KvBlockPool::ContentId parent, std::span<const int32_t> tokens) {
  uint64_t hash = parent * 0x9e3779b97f4a7c15u;
  for (const int32_t token : tokens) {
    hash = (hash ^ static_cast<uint32_t>(token)) * 0xff51afd7ed558ccdu;
    hash ^= hash >> 32;
  }
  return hash;
}

}  // namespace

KvBlockPool::KvBlockPool(int32_t num_blocks, int32_t block_size)
    : block_size_(block_size), end_(num_blocks), blocks_(static_cast<size_t>(num_blocks) + 1) {
  CHECK(num_blocks > 0 && block_size > 0);
  tokens_.resize(static_cast<size_t>(num_blocks) * static_cast<size_t>(block_size));
  buckets_.assign(std::bit_ceil(static_cast<size_t>(num_blocks) * 2), kNoBlock);
  blocks_[end_].previous = blocks_[end_].next = end_;
  for (int32_t block = 0; block < num_blocks; ++block) LinkAfter(blocks_[end_].previous, block);
}

int32_t KvBlockPool::Allocate() {
  CHECK(num_available_ > 0);
  const int32_t block = blocks_[end_].next;
  UnlinkAvailable(block);
  Forget(block);
  blocks_[block].ref_count = 1;
  return block;
}

void KvBlockPool::Ref(int32_t block) {
  if (blocks_[block].ref_count == 0) {
    CHECK(blocks_[block].content != kNoContent);
    UnlinkAvailable(block);
  }
  ++blocks_[block].ref_count;
}

void KvBlockPool::Unref(int32_t block) {
  CHECK(blocks_[block].ref_count > 0);
  if (--blocks_[block].ref_count > 0) return;
  const bool reusable = blocks_[block].content != kNoContent;
  LinkAfter(reusable ? blocks_[end_].previous : end_, block);
}

int32_t KvBlockPool::Find(ContentId parent, std::span<const int32_t> tokens) const {
  return FindHashed(HashContent(parent, tokens), parent, tokens);
}

KvBlockPool::ContentId KvBlockPool::Publish(int32_t block, ContentId parent, std::span<const int32_t> tokens) {
  CHECK(blocks_[block].ref_count > 0 && blocks_[block].content == kNoContent);
  CHECK(static_cast<int32_t>(tokens.size()) == block_size_);
  const uint64_t hash = HashContent(parent, tokens);
  const int32_t known = FindHashed(hash, parent, tokens);
  if (known != kNoBlock) return blocks_[known].content;
  std::copy(tokens.begin(), tokens.end(), Tokens(block).begin());
  Block& published = blocks_[block];
  published.content = next_content_++;
  published.parent = parent;
  published.hash = hash;
  published.next_in_bucket = Bucket(hash);
  Bucket(hash) = block;
  return published.content;
}

int32_t KvBlockPool::FindHashed(uint64_t hash, ContentId parent, std::span<const int32_t> tokens) const {
  int32_t block = buckets_[hash & (buckets_.size() - 1)];
  for (; block != kNoBlock; block = blocks_[block].next_in_bucket) {
    if (blocks_[block].parent == parent && std::ranges::equal(Tokens(block), tokens)) return block;
  }
  return kNoBlock;
}

std::span<int32_t> KvBlockPool::Tokens(int32_t block) {
  return std::span(tokens_).subspan(static_cast<size_t>(block) * block_size_, block_size_);
}

std::span<const int32_t> KvBlockPool::Tokens(int32_t block) const {
  return std::span(tokens_).subspan(static_cast<size_t>(block) * block_size_, block_size_);
}

void KvBlockPool::LinkAfter(int32_t position, int32_t block) {
  const int32_t next = blocks_[position].next;
  blocks_[block].previous = position;
  blocks_[block].next = next;
  blocks_[position].next = block;
  blocks_[next].previous = block;
  ++num_available_;
  if (blocks_[block].content != kNoContent) ++num_cached_;
}

void KvBlockPool::UnlinkAvailable(int32_t block) {
  blocks_[blocks_[block].previous].next = blocks_[block].next;
  blocks_[blocks_[block].next].previous = blocks_[block].previous;
  --num_available_;
  if (blocks_[block].content != kNoContent) --num_cached_;
}

void KvBlockPool::Forget(int32_t block) {
  Block& forgotten = blocks_[block];
  if (forgotten.content == kNoContent) return;
  int32_t* link = &Bucket(forgotten.hash);
  while (*link != block) link = &blocks_[*link].next_in_bucket;
  *link = forgotten.next_in_bucket;
  forgotten.content = kNoContent;
}

}  // namespace switchyard
