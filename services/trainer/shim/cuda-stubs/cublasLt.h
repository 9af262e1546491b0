// Own declaration stub: the type that ATen's CUDA context header names.
#pragma once
typedef struct cublasLtContext* cublasLtHandle_t;
