// Accounts for the KV cache: which blocks are free, who shares them, and which prefixes can be reused.
//
//   ref_count > 0                   held by that many sequences
//   ref_count = 0, no content       free
//   ref_count = 0, with content     free as well, but Find still gives it back to whoever has the same prefix
//
// A full block can be published: its content is known by (content of the block before it, its own tokens).
//
//   block 4: tokens [a b c d] after nothing      -> content 1
//   block 9: tokens [e f g h] after content 1    -> content 2     Find(1, [e f g h]) = 9
//
// Content ids are given out once and never again, and Find compares tokens and parent, not only their hash: a
// collision or an evicted parent can miss a reuse but can never alias two prefixes.
//
// Allocation takes blocks without content first, then evicts the content released longest ago. Every operation takes
// O(1) (Find and Publish: O(block_size)); all memory is taken in the constructor. Not thread-safe.
#ifndef SWITCHYARD_SERVER_SCHEDULER_KV_BLOCK_POOL_H_
#define SWITCHYARD_SERVER_SCHEDULER_KV_BLOCK_POOL_H_

#include <cstdint>
#include <span>
#include <vector>

namespace switchyard {

class KvBlockPool {
 public:
  using ContentId = uint64_t;
  static constexpr ContentId kNoContent = 0;  // as a parent: the start of the sequence
  static constexpr int32_t kNoBlock = -1;

  // REQUIRES: both positive.
  KvBlockPool(int32_t num_blocks, int32_t block_size);

  int32_t num_blocks() const { return static_cast<int32_t>(blocks_.size()) - 1; }
  int32_t num_available() const { return num_available_; }  // with ref_count 0
  int32_t num_cached() const { return num_cached_; }        // of these, with content
  int32_t ref_count(int32_t block) const { return blocks_[block].ref_count; }
  ContentId content(int32_t block) const { return blocks_[block].content; }

  // A block with ref_count 1 and no content. REQUIRES: num_available() > 0.
  int32_t Allocate();
  // One more holder; revives a cached block. REQUIRES: the block is held or has content.
  void Ref(int32_t block);
  // One holder less; the last one leaves it available. REQUIRES: ref_count > 0.
  void Unref(int32_t block);

  // The block that holds `tokens` after `parent`, or kNoBlock. REQUIRES: tokens.size() = block_size.
  int32_t Find(ContentId parent, std::span<const int32_t> tokens) const;
  // Offers a block for reuse and returns its content id. If an equal one is already known, that one stays the one to be
  // found, and its id is returned. REQUIRES: ref_count > 0, no content yet, tokens.size() = block_size.
  ContentId Publish(int32_t block, ContentId parent, std::span<const int32_t> tokens);

 private:
  struct Block {
    int32_t ref_count = 0;
    int32_t previous = 0;  // among the available blocks; first to be allocated comes first
    int32_t next = 0;
    int32_t next_in_bucket = kNoBlock;
    ContentId content = kNoContent;
    ContentId parent = kNoContent;
    uint64_t hash = 0;
  };

  int32_t& Bucket(uint64_t hash) { return buckets_[hash & (buckets_.size() - 1)]; }
  int32_t FindHashed(uint64_t hash, ContentId parent, std::span<const int32_t> tokens) const;
  std::span<int32_t> Tokens(int32_t block);
  std::span<const int32_t> Tokens(int32_t block) const;
  void LinkAfter(int32_t position, int32_t block);
  void UnlinkAvailable(int32_t block);
  void Forget(int32_t block);  // its content

  const int32_t block_size_;
  const int32_t end_;  // index of the list's sentinel, the last element of blocks_
  std::vector<Block> blocks_;
  std::vector<int32_t> tokens_;   // [num_blocks, block_size], of blocks with content
  std::vector<int32_t> buckets_;  // power of two; first block of each chain
  ContentId next_content_ = 1;
  int32_t num_available_ = 0;
  int32_t num_cached_ = 0;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_SCHEDULER_KV_BLOCK_POOL_H_
