// The second file of the program, compiled with -mavx2 -mfma.
#include "everything.h"

float score_elsewhere(const terse::Reranker& reranker, const terse::Pair& pair) {
  return reranker.score({&pair, 1}).front();
}
