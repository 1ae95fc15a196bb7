// BM25: an inverted index of words, and the ranking function of Robertson and others, 1994.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "terse/checked.h"
#include "terse/error.h"
#include "terse/evaluate/porter.h"
#include "terse/evaluate/run.h"
#include "terse/evaluate/text_map.h"
#include "terse/evaluate/top_k.h"
#include "terse/evaluate/words.h"
#include "terse/utf8.h"

namespace terse {

// What is done to words before they are counted.
enum class WordForms : std::uint8_t {
  plain,    // nothing: any language
  english,  // English stop words are dropped, the others stemmed
};

struct Bm25Options {
  double k1 = 0.9;  // how soon repetitions of a word cease to count
  double b = 0.4;   // how much of a document's length counts, 0 to 1
  WordForms words = WordForms::plain;
};

// An index of a corpus, built document by document.
//   score(q, d) = sum over the words w of q of idf(w) tf / (tf + k1 (1 - b + b |d| / mean |d|))
//   idf(w)      = ln(1 + (N - df + 0.5) / (df + 0.5))
// with tf the occurrences of w in d, df the documents that hold w, N all documents; a word that
// stands twice in q counts twice. Source: Lucene's BM25Similarity (idf, without the constant factor
// k1 + 1); Kamphuis and others, ECIR 2020. Searching is const and may be done from several threads.
class Bm25Index {
 public:
  // Throws Error(range) for a negative k1 or b outside 0 to 1.
  explicit Bm25Index(const Bm25Options& options = {}) : options_(options) {
    check(options.k1 >= 0 && options.b >= 0 && options.b <= 1, ErrorClass::range, "BM25 with k1 ",
          options.k1, " and b ", options.b, ", expected k1 >= 0 and b from 0 to 1");
  }

  // Throws Error: utf8, overflow (2^32 documents).
  void add(std::string_view id, std::string_view text) {
    check_utf8(text, "document " + quote(id));
    const auto document = narrow<std::uint32_t>(ids_.size(), "number of documents");
    std::uint32_t length = 0;
    for_each_term(text, [&](std::string_view term) {
      ++length;
      auto at = terms_.find(term);
      if (at == terms_.end()) {
        at = terms_.emplace(std::string(term), postings_.size()).first;
        postings_.emplace_back();
      }
      std::vector<Posting>& postings = postings_[at->second];
      if (postings.empty() || postings.back().document != document) postings.push_back({document});
      ++postings.back().count;
    });
    ids_.emplace_back(id);
    lengths_.push_back(length);
    total_length_ += length;
  }

  std::size_t size() const { return ids_.size(); }

  // The k best documents that hold a word of the query, best first. Throws Error(utf8).
  std::vector<RunEntry> search(std::string_view query, std::size_t k) const {
    check_utf8(query, "query");
    std::vector<double> scores(ids_.size());
    for_each_term(query, [&](std::string_view term) {
      if (const auto at = terms_.find(term); at != terms_.end()) {
        add_term(postings_[at->second], scores);
      }
    });
    TopK best(k, ids_);
    for (std::size_t document = 0; document < scores.size(); ++document) {
      if (scores[document] > 0) {
        best.add({static_cast<std::uint32_t>(document), static_cast<float>(scores[document])});
      }
    }
    return best.take();
  }

 private:
  struct Posting {
    std::uint32_t document = 0;
    std::uint32_t count = 0;
  };

  template <class Visit>
  void for_each_term(std::string_view text, Visit&& visit) const {
    for_each_word(text, [&](std::string_view word) {
      if (options_.words == WordForms::plain) {
        visit(word);
      } else if (!is_english_stop_word(word)) {
        visit(std::string_view(stem_english(word)));
      }
    });
  }

  void add_term(const std::vector<Posting>& postings, std::vector<double>& scores) const {
    const auto num_documents = static_cast<double>(ids_.size());
    const auto df = static_cast<double>(postings.size());
    const double idf = std::log(1 + (num_documents - df + 0.5) / (df + 0.5));
    const double mean_length = static_cast<double>(total_length_) / num_documents;
    for (const Posting& posting : postings) {
      const auto tf = static_cast<double>(posting.count);
      const double length = static_cast<double>(lengths_[posting.document]) / mean_length;
      const double saturation = options_.k1 * (1 - options_.b + options_.b * length);
      scores[posting.document] += idf * tf / (tf + saturation);
    }
  }

  Bm25Options options_;
  std::vector<std::string> ids_;
  std::vector<std::uint32_t> lengths_;  // in words
  std::uint64_t total_length_ = 0;
  TextMap<std::size_t> terms_;                  // into postings_
  std::vector<std::vector<Posting>> postings_;  // of each term, by document
};

}  // namespace terse
