// Kernels for any CPU: vectors of four floats, which SSE2 and NEON have. Not tuned, and on ARM untested.

#include "tables.h"

#define LANES 4
#define ROWS 4
#define VECTORS 2
#define KEYS 4
#define FUSED 0
#if defined(__x86_64__)
#define PIN(x) __asm__("" : "+x"(x))
#elif defined(__aarch64__)
#define PIN(x) __asm__("" : "+w"(x))
#else
#define PIN(x) (void)(x)
#endif

#include "vector/vector.h"

#include "vector/products_float32.h"

#include "vector/convolution.h"

#include "vector/attention.h"

#include "vector/displacement.h"

#include "vector/elementwise.h"

#include "vector/table.h"

const kernel_table kernels_generic = TABLE("generic", NULL, NULL, NULL);

