// What both source files include: everything of terse, after headers whose names might clash.
#pragma once

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <string>
#include <vector>

#include "terse/terse.h"

// The score of one pair; defined in the file that is compiled with other instruction-set flags.
float score_elsewhere(const terse::Reranker& reranker, const terse::Pair& pair);
