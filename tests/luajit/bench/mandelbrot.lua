local size, inside = 1800, 0
for py = 0, size - 1 do
  local ci = 2 * py / size - 1
  for px = 0, size - 1 do
    local cr, x, y, n = 2 * px / size - 1.5, 0, 0, 0
    while n < 50 and x * x + y * y <= 4 do x, y, n = x * x - y * y + cr, 2 * x * y + ci, n + 1 end
    if n == 50 then inside = inside + 1 end
  end
end
print(inside)
