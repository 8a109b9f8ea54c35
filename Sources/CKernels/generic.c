// Kernels for any CPU: vectors of four floats, which SSE2 and NEON have. Not tuned, and on ARM untested.

#include "tables.h"

#define NAME "generic"
#define TABLE kernels_generic
#define LANES 4
#define ROWS 4
#define VECTORS 2
#define KEYS 4
#define FUSED 0
#define PIN(x) (void)(x)

#include "vector/vector.h"

#include "vector/matmul.h"

#include "vector/attention.h"

#include "vector/elementwise.h"

#include "vector/table.h"

