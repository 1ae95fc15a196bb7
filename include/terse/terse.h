// Everything a user of terse needs: the public headers, and nothing of its own.
#pragma once

#include "terse/error.h"
#include "terse/options.h"
