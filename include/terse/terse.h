// Everything a user of terse needs: the public headers, and nothing of its own.
#pragma once

#include "terse/embed.h"
#include "terse/error.h"
#include "terse/model_info.h"
#include "terse/options.h"
#include "terse/rerank.h"
