// The best k of many scored documents.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "terse/evaluate/run.h"

namespace terse {

struct ScoredDocument {
  std::uint32_t document = 0;  // its number in the corpus
  float score = 0;
};

// Keeps the k best documents it is shown, in k places of memory. Equal scores are ordered by
// descending document id, as runs are: the result does not depend on the order of showing.
class TopK {
 public:
  // ids: of all documents, by number; must outlive this.
  TopK(std::size_t k, const std::vector<std::string>& ids) : k_(k), ids_(&ids) {}

  void add(ScoredDocument entry) {
    if (heap_.size() == k_) {
      if (k_ == 0 || !order()(entry, heap_.front())) return;
      std::pop_heap(heap_.begin(), heap_.end(), order());
      heap_.back() = entry;
    } else {
      heap_.push_back(entry);
    }
    std::push_heap(heap_.begin(), heap_.end(), order());
  }

  // Best first.
  std::vector<RunEntry> take() {
    std::sort_heap(heap_.begin(), heap_.end(), order());
    std::vector<RunEntry> entries;
    entries.reserve(heap_.size());
    for (const ScoredDocument& entry : heap_) {
      entries.push_back({(*ids_)[entry.document], static_cast<double>(entry.score)});
    }
    heap_.clear();
    return entries;
  }

 private:
  struct Before {
    const std::vector<std::string>* ids;
    bool operator()(const ScoredDocument& a, const ScoredDocument& b) const {
      if (a.score != b.score) return a.score > b.score;
      return (*ids)[a.document] > (*ids)[b.document];
    }
  };
  Before order() const { return {ids_}; }

  std::size_t k_;
  const std::vector<std::string>* ids_;
  std::vector<ScoredDocument> heap_;  // the worst in front
};

}  // namespace terse
